package queue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

var policy = backoff.Policy{First: time.Second, Max: 4 * time.Second}

func TestKeyAddedWhileWorkedOnIsHandedOutAgainAfterwards(t *testing.T) {
	q := New[string](policy)
	q.Add("a")
	q.Add("a")
	k, err := q.Get(t.Context())
	if k != "a" || err != nil {
		t.Fatalf("Get = %q, %v", k, err)
	}
	q.Add("a")
	if q.Len() != 0 {
		t.Error("a key was ready for a second worker while the first held it")
	}
	q.Done("a")
	if q.Len() != 1 {
		t.Error("a key added during its work was lost")
	}
}

func TestRetryWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[string](policy)
		for _, want := range []time.Duration{1, 2, 4, 4} {
			start := clock.Now()
			q.Retry("a")
			if _, err := q.Get(t.Context()); err != nil {
				t.Fatal(err)
			}
			q.Done("a")
			if got := clock.Since(start); got != want*time.Second {
				t.Errorf("waited %v, want %v", got, want*time.Second)
			}
		}
		q.Forget("a")
		if q.Failures("a") != 0 {
			t.Error("Forget did not end the row of failures")
		}
	})
}

func TestOfSeveralDelaysTheEarliestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[string](policy)
		start := clock.Now()
		q.AddAfter("a", time.Minute)
		q.AddAfter("a", time.Second)
		q.AddAfter("a", time.Hour)
		if _, err := q.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := clock.Since(start); got != time.Second {
			t.Errorf("handed out after %v", got)
		}
	})
}

func TestCloseEndsGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New[int](policy)
		clock.AfterFunc(time.Second, q.Close)
		if _, err := q.Get(t.Context()); !errors.Is(err, context.Canceled) {
			t.Errorf("Get after Close = %v", err)
		}
	})
}

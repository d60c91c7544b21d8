package backoff

import (
	"testing"
	"time"
)

func TestAfterDoublesUpToTheMaximum(t *testing.T) {
	p := Policy{First: 10 * time.Second, Max: 5 * time.Minute}
	for failures, want := range map[int]time.Duration{
		0: 0, 1: 10 * time.Second, 2: 20 * time.Second, 5: 160 * time.Second,
		6: 5 * time.Minute, 1000000: 5 * time.Minute,
	} {
		if got := p.After(failures); got != want {
			t.Errorf("After(%d) = %v, want %v", failures, got, want)
		}
	}
}

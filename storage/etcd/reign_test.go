package etcd

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"github.com/sampan-dev/sampan/kit/clock"
)

// What a leader that is gone was given is answered soon after its successor is
// there; what began since is not disturbed, and a caller's own end is its own.
func TestALeadersEndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		lost := func(ctx context.Context) error {
			<-ctx.Done()
			return etcderrors.ErrCanceled
		}
		short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := s.during(short, lost); !errors.Is(err, etcderrors.ErrCanceled) {
			t.Errorf("before there is a leader: %v", err)
		}
		s.succeed()
		clock.AfterFunc(3*time.Second, s.succeed)
		start := clock.Now()
		err := s.during(t.Context(), lost)
		if took := clock.Since(start); !errors.Is(err, etcderrors.ErrTimeoutDueToLeaderFail) || took < 3*time.Second || took > 3*time.Second+2*lostAfter {
			t.Errorf("what was lost: %v after %s", err, took)
		}
		if err := s.during(t.Context(), func(ctx context.Context) error { return clock.Sleep(ctx, time.Minute) }); err != nil {
			t.Errorf("what began since: %v", err)
		}
		again, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := s.during(again, lost); !errors.Is(err, etcderrors.ErrCanceled) {
			t.Errorf("a caller that gives up: %v", err)
		}
		s.succeed()
		_ = clock.Sleep(t.Context(), time.Minute)
	})
}

// asked is a member that answers a consistent read with each of its errors in turn.
type asked struct{ errs []error }

func (a *asked) LinearizableReadNotify(ctx context.Context) error {
	if len(a.errs) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	err := a.errs[0]
	a.errs = a.errs[1:]
	return err
}

// A consistent read waits out a change of leaders, and not for ever for one.
func TestAConsistentReadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := synced(t.Context(), &asked{[]error{etcderrors.ErrLeaderChanged, etcderrors.ErrLeaderChanged, nil}}); err != nil {
			t.Errorf("leaders changed: %v", err)
		}
		start := clock.Now()
		if err := synced(t.Context(), &asked{}); !errors.Is(err, etcderrors.ErrTimeout) || clock.Since(start) > 10*time.Second {
			t.Errorf("nobody answers: %v after %s", err, clock.Since(start))
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := synced(short, &asked{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that gives up: %v", err)
		}
	})
}

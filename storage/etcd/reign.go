package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"github.com/sampan-dev/sampan/kit/clock"
)

// reign is the time of one leader. What was handed to a leader that is gone may be
// lost, and etcd would wait for it as long as for anything else; who asked is told
// soon after the next leader is there.
type reign struct {
	ctx context.Context
	end context.CancelFunc
}

func newReign() *reign {
	r := &reign{}
	r.ctx, r.end = context.WithCancel(context.Background())
	return r
}

// Patience with a member that has peers.
const (
	// lostAfter is when, after a new leader is there, what the old one had is lost.
	lostAfter = time.Second
	// syncPatience bounds a consistent read, which etcd's own bound counts twice
	// where it waits for the question of another.
	syncPatience = 8 * time.Second
)

// reigns follows the leaders until ctx ends.
func (s *Server) reigns(ctx context.Context, e *etcdserver.EtcdServer) {
	for {
		changed := e.LeaderChangedNotify()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		s.succeed()
	}
}

// succeed begins a reign, and ends the one before a little later.
func (s *Server) succeed() {
	if old := s.reign.Swap(newReign()); old != nil {
		clock.AfterFunc(lostAfter, old.end)
	}
}

// during does fn, until the reign in which it began is over.
func (s *Server) during(ctx context.Context, fn func(context.Context) error) error {
	r := s.reign.Load()
	if r == nil {
		return fn(ctx)
	}
	try, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	err := fn(try)
	if err != nil && try.Err() != nil && ctx.Err() == nil {
		return etcderrors.ErrTimeoutDueToLeaderFail
	}
	return err
}

// synced waits until the member shows every write acknowledged so far. A change
// of leaders is waited out.
func synced(ctx context.Context, e interface {
	LinearizableReadNotify(context.Context) error
}) error {
	try, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	for {
		err := e.LinearizableReadNotify(try)
		switch {
		case errors.Is(err, etcderrors.ErrLeaderChanged) && try.Err() == nil:
			continue
		case err != nil && try.Err() != nil && ctx.Err() == nil:
			return etcderrors.ErrTimeout
		}
		return err
	}
}

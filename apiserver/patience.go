package apiserver

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// final is how long a client may take to read an answer whose time is over.
const final = 5 * time.Second

// hurry ends the reading of a request's body, and a little later the writing of
// its answer, when the request's time is over: a client that sends or reads a
// byte a minute holds nothing for long. The result calls it off, and waits for
// what has begun: an answer must not be touched once its handler has returned.
func (s *Server) hurry(ctx context.Context, w http.ResponseWriter) (stop func()) {
	done := make(chan struct{})
	off := context.AfterFunc(ctx, func() {
		defer close(done)
		conn := http.NewResponseController(w)
		now := clock.Now()
		_ = conn.SetReadDeadline(now)
		_ = conn.SetWriteDeadline(now.Add(min(final, s.c.Timeout)))
	})
	return func() {
		if !off() {
			<-done
		}
	}
}

// stall bounds how long a watch may be stuck in one write: who does not read for
// so long gets no more, and comes back to read anew.
type stall struct {
	timer *time.Timer
	limit time.Duration

	mu      sync.Mutex
	writing bool // outside a write the answer may be gone already
}

func newStall(w http.ResponseWriter, limit time.Duration) *stall {
	s := &stall{limit: limit}
	s.timer = clock.AfterFunc(limit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.writing {
			_ = http.NewResponseController(w).SetWriteDeadline(clock.Now())
		}
	})
	s.timer.Stop()
	return s
}

func (s *stall) begin() { s.set(true) }
func (s *stall) end()   { s.set(false) }

func (s *stall) set(writing bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing = writing; writing {
		s.timer.Reset(s.limit)
	} else {
		s.timer.Stop()
	}
}

package apiserver

import (
	"context"
	"net/http"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// final is how long a client may take to read an answer whose time is over.
const final = 5 * time.Second

// hurry ends the reading of a request's body, and a little later the writing of
// its answer, when the request's time is over: a client that sends or reads a
// byte a minute holds nothing for long. The result calls it off.
func (s *Server) hurry(ctx context.Context, w http.ResponseWriter) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		conn := http.NewResponseController(w)
		now := clock.Now()
		_ = conn.SetReadDeadline(now)
		_ = conn.SetWriteDeadline(now.Add(min(final, s.c.Timeout)))
	})
}

// stall bounds how long a watch may be stuck in one write: who does not read for
// so long gets no more, and comes back to read anew.
type stall struct {
	timer *time.Timer
	limit time.Duration
}

func newStall(w http.ResponseWriter, limit time.Duration) *stall {
	t := clock.AfterFunc(limit, func() { _ = http.NewResponseController(w).SetWriteDeadline(clock.Now()) })
	t.Stop()
	return &stall{timer: t, limit: limit}
}

func (s *stall) begin() {
	if s != nil {
		s.timer.Reset(s.limit)
	}
}

func (s *stall) end() {
	if s != nil {
		s.timer.Stop()
	}
}

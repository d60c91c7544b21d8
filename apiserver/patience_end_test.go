package apiserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// timed is an answer whose deadlines are counted; setting one takes a second.
type timed struct {
	http.ResponseWriter
	set atomic.Int32
}

func (w *timed) SetReadDeadline(time.Time) error { return nil }

func (w *timed) SetWriteDeadline(time.Time) error {
	time.Sleep(time.Second)
	w.set.Add(1)
	return nil
}

// Nothing touches an answer once its handler has returned: HTTP/2 would panic.
func TestAnswersAreLeftAloneAfterTheirHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &timed{ResponseWriter: httptest.NewRecorder()}
		s := &Server{}
		ctx, cancel := context.WithCancel(t.Context())
		stop := s.hurry(ctx, w)
		cancel()
		synctest.Wait() // the deadline is being set
		stop()
		if w.set.Load() != 1 {
			t.Error("the handler returned while its answer's deadline was being set")
		}
		ctx, cancel = context.WithCancel(t.Context())
		s.hurry(ctx, w)()
		cancel()
		synctest.Wait()
		if w.set.Load() != 1 {
			t.Error("called off, and yet a deadline was set")
		}

		watch := newStall(w, time.Minute)
		watch.begin()
		watch.end()
		time.Sleep(2 * time.Minute)
		if w.set.Load() != 1 {
			t.Error("a watch that waits for nothing got a deadline")
		}
		watch.begin()
		time.Sleep(2 * time.Minute)
		if w.set.Load() != 2 {
			t.Error("a watcher that does not read got no deadline")
		}
	})
}

package fairness

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Filter lets requests to next when it is their turn. long says which take any
// time; of those only watches are counted, and only until they have begun.
func (c *Controller) Filter(next http.Handler, long func(*http.Request, *request.Info) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		i := request.InfoFrom(ctx)
		watch := i.Verb == "watch"
		if !watch && long(r, i) {
			next.ServeHTTP(w, r)
			return
		}
		t := c.enter(r, i, w)
		if t == nil {
			return
		}
		if watch {
			c.serveWatch(w, r, next, t)
			return
		}
		mutating := isMutating(i)
		if c.d.Inflight != nil {
			c.d.Inflight(mutating, 1)
			defer c.d.Inflight(mutating, -1)
		}
		c.mix.shift(phaseExecuting, mutating, 1)
		defer c.mix.shift(phaseExecuting, mutating, -1)
		defer t.leave()
		next.ServeHTTP(w, r)
	})
}

// What upstream spells X-Kubernetes-PF-FlowSchema-UID and
// X-Kubernetes-PF-PriorityLevel-UID, as http.Header keeps them.
const (
	schemaHeader = "X-Kubernetes-Pf-Flowschema-Uid"
	levelHeader  = "X-Kubernetes-Pf-Prioritylevel-Uid"
)

func isMutating(i *request.Info) bool {
	return i.Verb != "get" && i.Verb != "list" && i.Verb != "watch"
}

// enter waits for a request's turn; nil says that it was refused and answered.
func (c *Controller) enter(r *http.Request, i *request.Info, w http.ResponseWriter) *ticket {
	ctx := r.Context()
	u := request.UserFrom(ctx)
	s := c.classify(u, i)
	h := w.Header()
	h[levelHeader], h[schemaHeader] = s.levelUID, s.uid
	flow := s.distinguisher(u, i)
	t := &ticket{
		level: s.level, flows: s.flows, work: c.estimate(r, i, s.maxSeats), arrived: clock.Now(), watch: i.Verb == "watch",
		flow: flow, info: i, user: u.Name, mix: c.mix,
	}
	s.flows.estimated.Observe(float64(t.work.width()))
	deadline, has := ctx.Deadline()
	reason := s.level.enter(ctx, t, hash(c.c.Seed, s.name, flow), bound(deadline, has, t.arrived, c.c.Wait))
	if t.go_ != nil {
		tell(w, clock.Since(t.arrived))
	}
	if reason == "" {
		s.flows.began(t)
		return t
	}
	s.flows.refused(t, reason)
	if c.d.Dropped != nil {
		c.d.Dropped(isMutating(i))
	}
	h.Set("Retry-After", strconv.FormatInt(c.retry.count(s.level.name, clock.Now()), 10))
	http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
	return nil
}

// tell lets the answer know how long its request was kept waiting.
func tell(w http.ResponseWriter, wait time.Duration) {
	for w != nil {
		if a, ok := w.(interface{ Waited(time.Duration) }); ok {
			a.Waited(wait)
			return
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = u.Unwrap()
	}
}

// initTime is how long a watch may keep its seats, whatever it does.
const initTime = 200 * time.Millisecond

// serveWatch gives a watch's seats back when its first events are out.
func (c *Controller) serveWatch(w http.ResponseWriter, r *http.Request, next http.Handler, t *ticket) {
	c.watches.begin(t.info)
	defer c.watches.end(t.info)
	first := &starting{ResponseWriter: w, flushes: 1, leave: sync.OnceFunc(t.leave)}
	if wantsState(r.URL.RawQuery) {
		first.flushes = 2 // after the headers, the objects there are
	}
	timer := clock.AfterFunc(initTime, first.leave)
	defer timer.Stop()
	defer first.leave()
	next.ServeHTTP(first, r)
}

// starting is the answer to a watch that has not begun.
type starting struct {
	http.ResponseWriter
	flushes int // until it has
	leave   func()
}

// FlushError implements what http.ResponseController looks for.
func (s *starting) FlushError() error {
	err := http.NewResponseController(s.ResponseWriter).Flush()
	if s.flushes > 0 {
		if s.flushes--; s.flushes == 0 {
			s.leave()
		}
	}
	return err
}

// Flush implements http.Flusher.
func (s *starting) Flush() { _ = s.FlushError() }

// Unwrap lets http.ResponseController reach the rest.
func (s *starting) Unwrap() http.ResponseWriter { return s.ResponseWriter }

package fairness

import (
	"context"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// guess is how long a request is taken to last, until it is known.
const guess = 0.003 // seconds

// level is one priority level at work.
type level struct {
	name string
	met  *levelMetrics
	need func() // is told, under the lock, that the level could use more seats

	mu     sync.Mutex
	exempt bool
	rejects
	share  share
	bounds bounds
	limit  int // seats to give now; exempt levels ignore it
	gone   bool

	queues []*queue // the first deck of them are dealt
	deck   int      // 0: no queues, what finds no seat is refused
	hand   int
	length int // requests a queue may hold

	seats, executing      int
	waiting, waitingSeats int
	active                int      // queues with requests waiting or executing
	lining                []*queue // queues with requests waiting
	running               list
	dispatched            int

	r      float64 // virtual seconds: how far a flow has come that always had something to do
	demand demand
	flows  map[string]*flowStats
}

// rejects counts the requests a level refused, by reason.
type rejects struct{ full, late, cancelled, limited int }

// The reasons, as metrics name them.
const (
	queueFull        = "queue-full"
	concurrencyLimit = "concurrency-limit"
	timedOut         = "time-out"
	cancelled        = "cancelled"
)

// queue holds requests of the flows that were dealt it.
type queue struct {
	index     int
	waiting   []*ticket
	executing int
	seats     int
	next      float64 // the virtual time its next request begins at
	lining    int     // its place in the level's lining, -1 when not there
}

// work is what a queue has to do: what waits, and what is being done.
func (q *queue) load() int {
	n := q.seats
	for _, t := range q.waiting {
		n += t.work.width()
	}
	return n
}

// ticket is a request at a level.
type ticket struct {
	level    *level
	flows    *flowStats
	work     work
	queue    *queue // nil without queues
	arrived  time.Time
	started  time.Time
	watch    bool
	go_      chan struct{} // closed when it may begin; nil when it never waited
	reason   string        // why it was refused
	flow     string
	info     *request.Info
	user     string
	mix      *mix
	prev, nx *ticket // in the list of those running
}

// list is a ring of the tickets that run, for the dump.
type list struct{ head ticket }

func (l *list) add(t *ticket) {
	if l.head.nx == nil {
		l.head.nx, l.head.prev = &l.head, &l.head
	}
	t.prev, t.nx = l.head.prev, &l.head
	t.prev.nx, t.nx.prev = t, t
}

func (l *list) remove(t *ticket) {
	t.prev.nx, t.nx.prev = t.nx, t.prev
	t.prev, t.nx = nil, nil
}

func (l *list) all(yield func(*ticket) bool) {
	for t := l.head.nx; t != nil && t != &l.head; t = t.nx {
		if !yield(t) {
			return
		}
	}
}

// advance brings virtual time and statistics up to now. Virtual time runs as
// fast as seats are shared by the queues that have something to do.
func (l *level) advance(now time.Time) {
	if now.Before(l.demand.at) {
		now = l.demand.at // read before another's turn at the lock
	}
	want := l.seats + l.waitingSeats
	if l.active > 0 {
		l.r += now.Sub(l.demand.at).Seconds() * float64(min(want, max(l.limit, 1))) / float64(l.active)
	}
	l.met.observe(now.Sub(l.demand.at), l)
	l.demand.add(now, want)
}

// fits says whether so many seats may be taken. A request wider than the limit
// waits until it is alone.
func (l *level) fits(seats int) bool {
	switch {
	case l.exempt:
		return true
	case l.limit <= 0:
		return false
	case seats > l.limit:
		return l.seats == 0
	}
	return l.seats+seats <= l.limit
}

// enter lets t in, has it wait, or refuses it and says why.
func (l *level) enter(ctx context.Context, t *ticket, h uint64, wait time.Duration) (reason string) {
	now := t.arrived
	l.mu.Lock()
	l.advance(now)
	if l.exempt || l.deck == 0 {
		if !l.fits(t.work.width()) {
			l.limited++
			l.need()
			l.mu.Unlock()
			return concurrencyLimit
		}
		l.begin(t, now)
		l.mu.Unlock()
		return ""
	}
	q := l.choose(h)
	t.queue = q
	if l.waiting == 0 && l.fits(t.work.width()) {
		l.rouse(q)
		q.next += guess * float64(t.work.width())
		l.begin(t, now)
		l.mu.Unlock()
		return ""
	}
	l.need()
	if len(q.waiting) >= l.length {
		l.full++
		l.mu.Unlock()
		return queueFull
	}
	l.line(t)
	l.dispatch(now)
	l.mu.Unlock()
	return l.await(ctx, t, wait)
}

// choose deals the flow its hand and returns the queue of it with least to do.
func (l *level) choose(h uint64) *queue {
	var room [16]int
	hand := room[:min(l.hand, len(room))]
	deal(h, l.deck, hand)
	best, least := -1, 0
	for _, c := range hand {
		if n := l.queues[c].load(); best < 0 || n < least {
			best, least = c, n
		}
		if least == 0 {
			break
		}
	}
	return l.queues[best]
}

// rouse counts q among the active. One that had nothing to do gets no credit
// for the time it rested.
func (l *level) rouse(q *queue) {
	if q.executing == 0 && len(q.waiting) == 0 {
		q.next = max(q.next, l.r)
		l.active++
	}
}

func (l *level) line(t *ticket) {
	q := t.queue
	l.rouse(q)
	if len(q.waiting) == 0 {
		q.lining = len(l.lining)
		l.lining = append(l.lining, q)
	}
	q.waiting = append(q.waiting, t)
	t.go_ = make(chan struct{})
	l.waiting++
	l.waitingSeats += t.work.width()
	t.flows.waiting++
	t.flows.waitingSeats += t.work.width()
	t.flows.length(len(q.waiting))
}

// unline takes the k-th waiting request out of q.
func (l *level) unline(q *queue, k int) *ticket {
	t := q.waiting[k]
	copy(q.waiting[k:], q.waiting[k+1:])
	q.waiting[len(q.waiting)-1] = nil
	q.waiting = q.waiting[:len(q.waiting)-1]
	if len(q.waiting) == 0 {
		last := l.lining[len(l.lining)-1]
		l.lining[q.lining] = last
		last.lining = q.lining
		l.lining = l.lining[:len(l.lining)-1]
		q.lining = -1
	}
	l.waiting--
	l.waitingSeats -= t.work.width()
	t.flows.waiting--
	t.flows.waitingSeats -= t.work.width()
	return t
}

// dispatch lets requests in, as long as there are seats, from the queue that has
// had least. The next in turn is not overtaken when it is too wide.
func (l *level) dispatch(now time.Time) {
	for l.waiting > 0 {
		var first *queue
		least := 0.0
		for _, q := range l.lining {
			end := q.next + guess*float64(q.waiting[0].work.width())
			if first == nil || end < least || end == least && q.index < first.index {
				first, least = q, end
			}
		}
		width := first.waiting[0].work.width()
		if !l.fits(width) {
			first.waiting[0].flows.noRoom.Inc()
			return
		}
		t := l.unline(first, 0)
		first.next += guess * float64(width)
		l.begin(t, now)
		close(t.go_)
	}
}

// begin gives t its seats.
func (l *level) begin(t *ticket, now time.Time) {
	t.started = now
	w := t.work.width()
	l.seats += w
	l.executing++
	l.dispatched++
	t.flows.executing++
	t.flows.seats += w
	if t.queue != nil {
		t.queue.executing++
		t.queue.seats += w
	}
	l.running.add(t)
	if l.seats > l.demand.peak {
		l.demand.peak = l.seats
	}
}

// await waits for t's turn.
func (l *level) await(ctx context.Context, t *ticket, wait time.Duration) string {
	timer := clock.NewTimer(wait)
	defer timer.Stop()
	if t.mix != nil {
		mutating := isMutating(t.info)
		t.mix.shift(phaseWaiting, mutating, 1)
		defer t.mix.shift(phaseWaiting, mutating, -1)
	}
	reason := ""
	select {
	case <-t.go_:
		return ""
	case <-timer.C:
		reason = timedOut
	case <-ctx.Done():
		reason = cancelled
		if ctx.Err() == context.DeadlineExceeded {
			reason = timedOut
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !t.started.IsZero() {
		return "" // its turn came at the same moment
	}
	now := clock.Now()
	l.advance(now)
	for k, other := range t.queue.waiting {
		if other == t {
			l.unline(t.queue, k)
			break
		}
	}
	l.rest(t.queue)
	if reason == timedOut {
		l.late++
	} else {
		l.cancelled++
	}
	l.dispatch(now)
	return reason
}

// rest counts q out of the active when it has nothing to do.
func (l *level) rest(q *queue) {
	if q.executing == 0 && len(q.waiting) == 0 {
		l.active--
	}
}

// leave gives t's seats back, at once or after what it left to do.
func (t *ticket) leave() {
	now := clock.Now()
	t.flows.done(t, now)
	if t.work.extra <= 0 {
		t.level.finish(t, now)
		return
	}
	clock.AfterFunc(t.work.extra, func() { t.level.finish(t, clock.Now()) })
}

func (l *level) finish(t *ticket, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	w := t.work.width()
	l.seats -= w
	l.executing--
	t.flows.executing--
	t.flows.seats -= w
	l.running.remove(t)
	if q := t.queue; q != nil {
		q.executing--
		q.seats -= w
		// Its turn cost what it took, not what was guessed.
		q.next += (now.Sub(t.started).Seconds() - guess) * float64(w)
		l.rest(q)
	}
	l.dispatch(now)
}

// wants is how many seats the level could use.
func (l *level) wants() int { return l.seats + l.waitingSeats }

// configure makes the level what its object says. Queues that are no longer
// dealt drain.
func (l *level) configure(s share, b bounds, queues, hand, length int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	l.exempt, l.share, l.bounds, l.limit = s.exempt, s, b, b.nominal
	l.deck, l.hand, l.length, l.gone = queues, hand, length, false
	for len(l.queues) > queues && l.queues[len(l.queues)-1].idle() {
		l.queues = l.queues[:len(l.queues)-1]
	}
	for len(l.queues) < queues {
		l.queues = append(l.queues, &queue{index: len(l.queues), lining: -1, next: l.r})
	}
	l.dispatch(now)
}

func (q *queue) idle() bool { return q.executing == 0 && len(q.waiting) == 0 }

// setLimit changes the seats there are to give.
func (l *level) setLimit(n int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	l.limit = n
	l.dispatch(now)
}

package apiserver

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Long answers are written in turns, by fewer requests at once than there are
// processors: who asks for little finds one free, and is not kept waiting behind
// megabytes of everybody else's lists.
const (
	bulkFrom = 128 << 10            // what is written before an answer takes turns
	bulkStep = 64 << 10             // and in one step from then on
	turnTime = 2 * time.Millisecond // how long a turn is
)

// pace deals the turns.
type pace struct {
	mu   sync.Mutex
	free int
	line []*turns // who waits, the first first
}

func newPace() *pace { return &pace{free: max(1, runtime.GOMAXPROCS(0)-1)} }

// turns are one answer's.
type turns struct {
	p     *pace
	has   bool
	slow  bool // lost its last turn while its client did not read
	until time.Time
	next  chan struct{}
	timer *time.Timer
}

func (p *pace) join() *turns {
	t := &turns{p: p, next: make(chan struct{}, 1)}
	t.timer = clock.AfterFunc(time.Hour, t.lose)
	t.timer.Stop()
	return t
}

// take waits for a turn, unless one is left or the client is what is waited for.
func (t *turns) take(ctx context.Context) {
	now := clock.Now()
	p := t.p
	p.mu.Lock()
	if t.slow {
		t.slow = false
		p.mu.Unlock()
		return
	}
	if t.has && (now.Before(t.until) || len(p.line) == 0) {
		t.timer.Reset(2 * turnTime)
		p.mu.Unlock()
		return
	}
	p.leave(t)
	if p.free > 0 && len(p.line) == 0 {
		p.give(t, now)
		p.mu.Unlock()
		return
	}
	p.line = append(p.line, t)
	p.pass(now)
	p.mu.Unlock()
	select {
	case <-t.next:
	case <-ctx.Done():
		t.end()
	}
}

// lose takes the turn of one that is stuck: its client does not read.
func (t *turns) lose() {
	t.p.mu.Lock()
	defer t.p.mu.Unlock()
	if t.has {
		t.slow = true
		t.p.leave(t)
		t.p.pass(clock.Now())
	}
}

// end gives back what there is.
func (t *turns) end() {
	p := t.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.line {
		if other == t {
			p.line = append(p.line[:i], p.line[i+1:]...)
			break
		}
	}
	p.leave(t)
	p.pass(clock.Now())
}

func (p *pace) leave(t *turns) {
	if t.has {
		t.has = false
		t.timer.Stop()
		p.free++
	}
}

func (p *pace) give(t *turns, now time.Time) {
	p.free--
	t.has, t.until = true, now.Add(turnTime)
	t.timer.Reset(2 * turnTime)
}

// pass gives free turns to who waits.
func (p *pace) pass(now time.Time) {
	for p.free > 0 && len(p.line) > 0 {
		t := p.line[0]
		p.line = p.line[1:]
		p.give(t, now)
		t.next <- struct{}{}
	}
}

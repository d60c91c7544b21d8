package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// stage is where a waiting pod is.
type stage uint8

const (
	active stage = iota // to be tried now
	backingOff
	unschedulable // to be tried when something changes
	gated         // not to be tried before its gates go
	inFlight      // being placed or bound
)

// flushAfter is how long a pod may stay unschedulable without a try.
const flushAfter = 5 * time.Minute

// waiting is a pod that has no node.
type waiting struct {
	pod      *corev1.Pod
	info     *info
	stage    stage
	since    time.Time // first seen: the order among equals
	attempts int
	ready    time.Time // when backing off ends
	cause    cause
	at       int // place in its heap
	moved    bool
}

// line is the queue of pods without a node. It is not safe for concurrent use.
type line struct {
	first, longest time.Duration
	all            map[types.UID]*waiting
	active         activeHeap
	backoff        backoffHeap
}

func newLine(first, longest time.Duration) *line {
	return &line{first: first, longest: longest, all: map[types.UID]*waiting{}}
}

type activeHeap []*waiting

func (h activeHeap) Len() int { return len(h) }
func (h activeHeap) Less(i, j int) bool {
	if a, b := priority(h[i].pod), priority(h[j].pod); a != b {
		return a > b
	}
	return h[i].since.Before(h[j].since)
}
func (h activeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *activeHeap) Push(x any)   { w := x.(*waiting); w.at = len(*h); *h = append(*h, w) }
func (h *activeHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return w
}

type backoffHeap []*waiting

func (h backoffHeap) Len() int           { return len(h) }
func (h backoffHeap) Less(i, j int) bool { return h[i].ready.Before(h[j].ready) }
func (h backoffHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].at, h[j].at = i, j }
func (h *backoffHeap) Push(x any)        { w := x.(*waiting); w.at = len(*h); *h = append(*h, w) }
func (h *backoffHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return w
}

// enter moves w to a stage.
func (l *line) enter(w *waiting, to stage) {
	switch w.stage {
	case active:
		if w.at >= 0 {
			heap.Remove(&l.active, w.at)
		}
	case backingOff:
		heap.Remove(&l.backoff, w.at)
	}
	w.at, w.stage = -1, to
	switch to {
	case active:
		heap.Push(&l.active, w)
	case backingOff:
		heap.Push(&l.backoff, w)
	}
}

// set takes in a pod without a node, or its new version.
func (l *line) set(p *corev1.Pod, now time.Time) {
	w := l.all[p.UID]
	if w == nil {
		w = &waiting{pod: p, info: newInfo(p), since: now, at: -1}
		l.all[p.UID] = w
		if len(p.Spec.SchedulingGates) > 0 {
			w.stage = gated
			return
		}
		l.enter(w, active)
		return
	}
	old := w.pod
	w.pod = p
	if old.Generation == p.Generation && p.Generation > 0 && equalLabels(old.Labels, p.Labels) {
		w.info.pod = p
		return
	}
	w.info = newInfo(p)
	switch {
	case w.stage == inFlight:
		w.moved = true
	case len(p.Spec.SchedulingGates) > 0:
		l.enter(w, gated)
	case w.stage == gated || w.stage == unschedulable:
		l.enter(w, active)
	}
}

func (l *line) drop(uid types.UID) {
	if w := l.all[uid]; w != nil {
		l.enter(w, unschedulable) // leaves its heap
		delete(l.all, uid)
	}
}

// pop hands out the next pod to try; with none, it says how long until there may be one.
func (l *line) pop(now time.Time) (*waiting, time.Duration) {
	for len(l.backoff) > 0 && !l.backoff[0].ready.After(now) {
		l.enter(l.backoff[0], active)
	}
	if len(l.active) == 0 {
		wait := flushAfter
		if len(l.backoff) > 0 {
			wait = l.backoff[0].ready.Sub(now)
		}
		return nil, wait
	}
	w := l.active[0]
	l.enter(w, inFlight)
	w.attempts++
	w.moved = false
	return w, 0
}

// failed puts a pod back that found no node: something must change, or, with
// again, only time must pass.
func (l *line) failed(w *waiting, why cause, again bool, now time.Time) {
	if l.all[w.pod.UID] != w {
		return
	}
	d := l.first
	for i := 1; i < w.attempts && d < l.longest; i++ {
		d *= 2
	}
	w.ready, w.cause = now.Add(min(d, l.longest)), why
	if why == causeVolume && !again {
		// It has its volumes, which only have to be bound: no failure to wait out.
		w.ready = now
	}
	if again || w.moved {
		l.enter(w, backingOff)
	} else {
		l.enter(w, unschedulable)
	}
}

// changed brings the pods back for which what happened may matter, and says whether any came.
func (l *line) changed(what cause, now time.Time) bool {
	any := false
	for _, w := range l.all {
		switch {
		case w.stage == inFlight:
			w.moved = true
		case w.stage == unschedulable && w.cause&what != 0:
			any = true
			if w.ready.After(now) {
				l.enter(w, backingOff)
			} else {
				l.enter(w, active)
			}
		}
	}
	return any
}

// flush brings back pods that nothing moved for long.
func (l *line) flush(now time.Time) {
	for _, w := range l.all {
		if w.stage == unschedulable && now.Sub(w.ready) > flushAfter {
			l.enter(w, active)
		}
	}
}

func (l *line) count() (n [gated + 1]int) {
	for _, w := range l.all {
		if w.stage <= gated {
			n[w.stage]++
		}
	}
	return n
}

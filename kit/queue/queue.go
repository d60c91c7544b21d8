// Package queue holds keys waiting to be worked on.
//
// Job: a key added many times before it is taken is worked on once; a key added
// while it is being worked on is worked on again after; a failing key comes
// back later and later.
//
// Not its job: what a key means, how many workers there are.
//
// Invariants: no key is handed to two workers at once; every key added is
// handed out at least once after the last Add, unless the queue closes.
package queue

import (
	"context"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Queue is a set of keys in the order they were first added. Make one with New.
type Queue[K comparable] struct {
	policy backoff.Policy

	mu       sync.Mutex
	ready    []K
	waiting  map[K]bool        // in ready
	working  map[K]bool        // handed out; true: again when done
	delayed  map[K]*time.Timer // earliest pending AddAfter
	due      map[K]time.Time
	failures map[K]int
	signal   chan struct{} // closed and replaced when ready grows or the queue closes
	closed   bool
}

// New returns an empty queue whose Retry waits follow policy.
func New[K comparable](policy backoff.Policy) *Queue[K] {
	return &Queue[K]{
		policy: policy, waiting: map[K]bool{}, working: map[K]bool{},
		delayed: map[K]*time.Timer{}, due: map[K]time.Time{}, failures: map[K]int{},
		signal: make(chan struct{}),
	}
}

// Add asks for k to be worked on as soon as possible.
func (q *Queue[K]) Add(k K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(k)
}

func (q *Queue[K]) add(k K) {
	if q.closed || q.waiting[k] {
		return
	}
	if _, busy := q.working[k]; busy {
		q.working[k] = true
		return
	}
	q.waiting[k] = true
	q.ready = append(q.ready, k)
	close(q.signal)
	q.signal = make(chan struct{})
}

// AddAfter asks for k to be worked on after d. Of several calls the earliest counts.
func (q *Queue[K]) AddAfter(k K, d time.Duration) {
	if d <= 0 {
		q.Add(k)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	at := clock.Now().Add(d)
	if t := q.delayed[k]; t != nil {
		if !at.Before(q.due[k]) {
			return
		}
		t.Stop()
	}
	q.due[k] = at
	var t *time.Timer
	t = clock.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.delayed[k] == t { // not superseded by an earlier one
			delete(q.delayed, k)
			delete(q.due, k)
			q.add(k)
		}
	})
	q.delayed[k] = t
}

// Retry asks for k to be worked on after a wait that grows with each Retry
// since the last Forget.
func (q *Queue[K]) Retry(k K) {
	q.mu.Lock()
	q.failures[k]++
	d := q.policy.After(q.failures[k])
	q.mu.Unlock()
	q.AddAfter(k, d)
}

// Failures returns how often k was retried since the last Forget.
func (q *Queue[K]) Failures(k K) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.failures[k]
}

// Forget ends k's row of failures.
func (q *Queue[K]) Forget(k K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.failures, k)
}

// Get waits for a key and hands it out; the caller must call Done with it. It
// returns an error when ctx ends or the queue closes.
func (q *Queue[K]) Get(ctx context.Context) (K, error) {
	var none K
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return none, context.Canceled
		}
		if len(q.ready) > 0 {
			k := q.ready[0]
			q.ready[0] = none
			q.ready = q.ready[1:]
			delete(q.waiting, k)
			q.working[k] = false
			q.mu.Unlock()
			return k, nil
		}
		signal := q.signal
		q.mu.Unlock()
		select {
		case <-signal:
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
}

// Done says that the work on k, handed out by Get, has ended.
func (q *Queue[K]) Done(k K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	again := q.working[k]
	delete(q.working, k)
	if again {
		q.add(k)
	}
}

// Len returns how many keys are ready to be handed out.
func (q *Queue[K]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready)
}

// Close drops all keys and makes every Get return.
func (q *Queue[K]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	for _, t := range q.delayed {
		t.Stop()
	}
	close(q.signal)
	q.signal = make(chan struct{})
}

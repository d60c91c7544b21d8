// Package run is the only place that starts goroutines.
//
// Job: every long-running task has a name, a context and an end. A Group stops
// its tasks in the reverse order of their start, one after the other, so that
// what depends on something is gone before that something.
//
// Not its job: retries, schedules, work queues.
//
// Invariants: a panic in a task is reported with the task's name and ends the
// group like an error does; Wait returns only when every task has returned.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"runtime/pprof"
	"sync"
)

// Group is a set of named tasks with one end. Make one with New.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	tasks   []*task
	stopped bool
}

type task struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// New returns an empty group whose tasks end when ctx does.
func New(ctx context.Context) *Group {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{ctx: ctx, cancel: cancel}
}

// Context ends when the group begins to stop.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts fn as the task called name. An error other than its context's own
// ending stops the whole group; returning nil ends only the task.
func (g *Group) Go(name string, fn func(ctx context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return
	}
	// Tasks are not children of the group's context: they are cancelled one by
	// one, in reverse, by Wait.
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.ctx))
	t := &task{name: name, cancel: cancel, done: make(chan struct{})}
	g.tasks = append(g.tasks, t)
	go func() {
		defer close(t.done)
		t.err = call(ctx, name, fn)
		if t.err != nil && !(errors.Is(t.err, context.Canceled) && ctx.Err() != nil) {
			t.err = fmt.Errorf("%s: %w", name, t.err)
			g.cancel(t.err)
			return
		}
		t.err = nil
	}()
}

// Stop asks the group to end; Wait does the ending.
func (g *Group) Stop() { g.cancel(nil) }

// Wait blocks until the group's context ends or every task has returned, stops
// the tasks that are left in reverse order of their start, and returns the
// first task error, if any.
func (g *Group) Wait() error {
	g.awaitEnd()
	g.mu.Lock()
	g.stopped = true
	tasks := g.tasks
	g.mu.Unlock()
	for i := len(tasks) - 1; i >= 0; i-- {
		tasks[i].cancel()
		<-tasks[i].done
	}
	cause := context.Cause(g.ctx)
	g.cancel(nil)
	for _, t := range tasks {
		if t.err != nil && errors.Is(cause, t.err) {
			return t.err
		}
	}
	for _, t := range tasks {
		if t.err != nil {
			return t.err
		}
	}
	return nil
}

// awaitEnd returns when the group is asked to stop or all its tasks are done,
// those included that were started while it waited.
func (g *Group) awaitEnd() {
	for i := 0; ; i++ {
		g.mu.Lock()
		if i >= len(g.tasks) {
			g.mu.Unlock()
			return
		}
		t := g.tasks[i]
		g.mu.Unlock()
		select {
		case <-t.done:
		case <-g.ctx.Done():
			return
		}
	}
}

// Detach runs fn on its own, named for profiles and panics; it ends with ctx.
// It is for work bound to one request or connection, whose owner waits by
// other means; long-running tasks belong in a Group.
func Detach(ctx context.Context, name string, fn func(ctx context.Context)) {
	go func() {
		err := call(ctx, name, func(ctx context.Context) error { fn(ctx); return nil })
		if err != nil {
			slog.Error("task failed", "task", name, "err", err)
		}
	}()
}

// call runs fn under a profiler label and turns a panic into an error.
func call(ctx context.Context, name string, fn func(ctx context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("task panicked", "task", name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	pprof.Do(ctx, pprof.Labels("task", name), func(ctx context.Context) { err = fn(ctx) })
	return err
}

package published

import (
	"context"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	upstream "k8s.io/apiserver/pkg/storage"

	"github.com/sampan-dev/sampan/storage"
)

func (a *adapter) Watch(ctx context.Context, k string, opts upstream.ListOptions) (watch.Interface, error) {
	k, err := key(k, opts.Recursive)
	if err != nil {
		return nil, err
	}
	rev, err := a.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{a: a, key: k, opts: opts, out: make(chan watch.Event, 100), cancel: cancel}
	if ctx.Err() != nil { // nobody waits for anything
		cancel()
		close(w.out)
		return w, nil
	}
	begin := opts.SendInitialEvents == nil && rev == 0 || opts.SendInitialEvents != nil && *opts.SendInitialEvents
	if rev == 0 || begin {
		l, err := a.store.List(ctx, k, storage.ListOptions{Rev: int64(rev), Match: storage.AtLeast})
		if rev == 0 {
			l, err = a.store.List(ctx, k, storage.ListOptions{})
		}
		if err != nil {
			cancel()
			return nil, err
		}
		if begin {
			w.first = l.Records
		}
		rev = uint64(l.Rev)
	}
	w.w, err = a.store.Watch(ctx, k, storage.WatchOptions{After: int64(rev), Progress: opts.ProgressNotify})
	if errors.Is(err, storage.ErrCompacted) {
		w.w, err = nil, nil
	}
	if err != nil {
		cancel()
		return nil, err
	}
	go w.run(ctx, rev)
	return w, nil
}

// watching is one watch of upstream's kind.
type watching struct {
	a      *adapter
	key    string
	opts   upstream.ListOptions
	w      storage.Watcher // nil: its beginning is gone
	first  []*storage.Record
	out    chan watch.Event
	cancel context.CancelFunc
	once   sync.Once
}

func (w *watching) Stop()                          { w.once.Do(w.cancel) }
func (w *watching) ResultChan() <-chan watch.Event { return w.out }

func (w *watching) send(ctx context.Context, e watch.Event) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *watching) fail(ctx context.Context, err error) {
	status := apierrors.NewInternalError(err)
	if errors.Is(err, storage.ErrCompacted) {
		status = apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old.")
	}
	w.send(ctx, watch.Event{Type: watch.Error, Object: &status.ErrStatus})
}

func (w *watching) run(ctx context.Context, rev uint64) {
	defer close(w.out)
	defer w.Stop()
	if w.w == nil {
		w.fail(ctx, storage.ErrCompacted)
		return
	}
	defer w.w.Stop()
	for _, rec := range w.first {
		obj, ok, err := w.see(rec)
		if err != nil {
			w.fail(ctx, err)
			return
		}
		if ok && !w.send(ctx, watch.Event{Type: watch.Added, Object: obj}) {
			return
		}
	}
	if s := w.opts.SendInitialEvents; s != nil && *s && w.opts.Predicate.AllowWatchBookmarks {
		mark := w.bookmark(int64(rev))
		if upstream.AnnotateInitialEventsEndBookmark(mark) != nil || !w.send(ctx, watch.Event{Type: watch.Bookmark, Object: mark}) {
			return
		}
	}
	for {
		events, err := w.w.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.fail(ctx, err)
			}
			return
		}
		for i := range events {
			e, ok, err := w.judge(&events[i])
			if err != nil {
				w.fail(ctx, err)
				return
			}
			if ok && !w.send(ctx, e) {
				return
			}
		}
	}
}

func (w *watching) bookmark(rev int64) runtime.Object {
	obj := &example.Pod{}
	_ = w.a.UpdateObject(obj, uint64(rev))
	return obj
}

// see decodes a record and says whether it is selected.
func (w *watching) see(rec *storage.Record) (runtime.Object, bool, error) {
	if rec == nil || !w.opts.Recursive && rec.Key != w.key {
		return nil, false, nil
	}
	obj := &example.Pod{}
	if err := w.a.read(rec, obj); err != nil {
		return nil, false, fmt.Errorf("%s: %w", rec.Key, err)
	}
	ok, err := w.opts.Predicate.Matches(obj)
	return obj, ok, err
}

// judge says what a change is to who sees only what he selected.
func (w *watching) judge(e *storage.Event) (watch.Event, bool, error) {
	if e.Type == storage.Progress {
		return watch.Event{Type: watch.Bookmark, Object: w.bookmark(e.Rev)}, true, nil
	}
	now, is, err := w.see(e.Record)
	if err != nil {
		return watch.Event{}, false, err
	}
	if e.Type == storage.Deleted {
		return watch.Event{Type: watch.Deleted, Object: now}, is, nil
	}
	before, was, err := w.see(e.Prev)
	if err != nil {
		return watch.Event{}, false, err
	}
	switch {
	case is && was:
		return watch.Event{Type: watch.Modified, Object: now}, true, nil
	case is:
		return watch.Event{Type: watch.Added, Object: now}, true, nil
	case was:
		err := w.a.UpdateObject(before, uint64(e.Rev))
		return watch.Event{Type: watch.Deleted, Object: before}, true, err
	}
	return watch.Event{}, false, nil
}

func (a *adapter) Stats(ctx context.Context) (upstream.Stats, error) {
	l, err := a.store.List(ctx, root+"/pods/", storage.ListOptions{})
	if err != nil {
		return upstream.Stats{}, err
	}
	return upstream.Stats{ObjectCount: int64(len(l.Records))}, nil
}

func (a *adapter) ReadinessCheck() error                                { return nil }
func (a *adapter) RequestWatchProgress(context.Context) error           { return nil }
func (a *adapter) EnableResourceSizeEstimation(upstream.KeysFunc) error { return nil }
func (a *adapter) CompactRevision() int64                               { return 0 }

func (a *adapter) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	rev, err := a.store.Rev(ctx)
	return uint64(rev), err
}

package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// bookmarkEvery is how long an idle watcher waits for news of its progress.
const bookmarkEvery = time.Minute

// Seen is one event of a watch: a record and what happened to it from the
// watcher's point of view.
type Seen struct {
	Type watch.EventType
	Rec  *storage.Record // nil for bookmarks
	Rev  int64           // of a bookmark
	// InitialEnd marks the bookmark after the initial events.
	InitialEnd bool
}

// Watch is a cursor of events.
type Watch struct {
	op    *Op
	sel   *selection
	w     storage.Watcher
	first []*storage.Record // initial events not delivered yet
	rev   int64             // everything up to here was delivered

	bookmarks  bool
	initialEnd bool // a bookmark is due when first is empty
	next       time.Time
	end        time.Time // zero for never
	queue      []Seen
	release    func() bool
}

// Watch opens a watch.
func (e *Engine) Watch(ctx context.Context, o *Op, opts *metav1.ListOptions) (*Watch, error) {
	c := *opts
	c.Watch = true
	if err := checkList(&c); err != nil {
		return nil, err
	}
	if o.Info.Name != "" && opts.FieldSelector == "" {
		c.FieldSelector = "metadata.name=" + o.Info.Name
	}
	sel, err := o.selection(c.LabelSelector, c.FieldSelector)
	if err != nil {
		return nil, err
	}
	w := &Watch{op: o, sel: sel, bookmarks: opts.AllowWatchBookmarks}
	now := clock.Now()
	w.next = now.Add(clock.Jitter(bookmarkEvery, 0.25))
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
		w.end = now.Add(secondsOf(*opts.TimeoutSeconds))
	}
	if err := e.startWatch(ctx, w, &c); err != nil {
		return nil, err
	}
	w.release = func() bool { return true }
	if o.custom != nil { // ends with the kind, so that the client begins anew
		w.release = context.AfterFunc(o.custom.Life(), w.w.Stop)
	}
	return w, nil
}

// startWatch finds where the watch begins, with or without initial events.
func (e *Engine) startWatch(ctx context.Context, w *Watch, opts *metav1.ListOptions) error {
	after, err := parseRevision(opts.ResourceVersion)
	if err != nil {
		return err
	}
	initial := opts.ResourceVersion == "" || opts.ResourceVersion == "0"
	if opts.SendInitialEvents != nil {
		initial = *opts.SendInitialEvents
		w.initialEnd = initial && opts.AllowWatchBookmarks
		if !initial && after == 0 {
			if after, err = e.Store.Rev(ctx); err != nil {
				return apierrors.NewInternalError(err)
			}
		}
	}
	if initial {
		lo := metav1.ListOptions{ResourceVersion: opts.ResourceVersion}
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			lo.ResourceVersionMatch = metav1.ResourceVersionMatchNotOlderThan
		}
		l, err := e.list(ctx, w.op, w.sel, &lo)
		if err != nil {
			return err
		}
		w.first, after = l.Records, l.Rev
	}
	w.rev = after
	so := storage.WatchOptions{After: after, Progress: w.bookmarks || w.initialEnd, NoPrev: w.sel.all()}
	if w.sel.name != "" && (w.op.Served.Info.ClusterScoped || w.op.Info.Namespace != "") {
		so.Index, so.Value = storage.KeyIndex, w.op.key(w.sel.name)
	} else if w.sel.index != "" {
		so.Index, so.Value = w.sel.index, w.sel.value
	}
	// Deletions need the last version of the object, which NoPrev may withhold.
	so.NoPrev = false
	w.w, err = e.Store.Watch(ctx, w.op.prefix(), so)
	if errors.Is(err, storage.ErrNoIndex) {
		so.Index, so.Value = "", ""
		w.w, err = e.Store.Watch(ctx, w.op.prefix(), so)
	}
	switch {
	case errors.Is(err, storage.ErrCompacted):
		return tooOld(after, err)
	case errors.Is(err, storage.ErrFuture):
		return e.tooFar(ctx, after)
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return nil
}

// tooOld is the 410 of a watch whose beginning is gone. It says where the
// history begins, if that is known.
func tooOld(rev int64, err error) error {
	text := fmt.Sprintf("too old resource version: %d", rev)
	var c *storage.CompactedError
	if errors.As(err, &c) {
		text += fmt.Sprintf(" (%d)", c.Base)
	}
	return apierrors.NewResourceExpired(text)
}

// Next returns the next events, at least one, or io.EOF at the watch's end. The
// slice is valid until the next call.
func (w *Watch) Next(ctx context.Context) ([]Seen, error) {
	w.queue = w.queue[:0]
	if len(w.first) > 0 {
		if err := w.op.warm(w.first); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		for _, rec := range w.first {
			w.queue = append(w.queue, Seen{Type: watch.Added, Rec: rec})
		}
		w.first = nil
		if w.initialEnd {
			w.initialEnd = false
			w.queue = append(w.queue, Seen{Type: watch.Bookmark, Rev: w.rev, InitialEnd: true})
		}
		return w.queue, nil
	}
	if w.initialEnd {
		w.initialEnd = false
		return append(w.queue, Seen{Type: watch.Bookmark, Rev: w.rev, InitialEnd: true}), nil
	}
	for len(w.queue) == 0 {
		if err := w.wait(ctx); err != nil {
			return nil, err
		}
	}
	return w.queue, nil
}

// wait takes one batch of changes from the store, or makes a bookmark.
func (w *Watch) wait(ctx context.Context) error {
	until := w.end
	if w.bookmarks && (until.IsZero() || w.next.Before(until)) {
		until = w.next
	}
	wctx, cancel := ctx, context.CancelFunc(func() {})
	if !until.IsZero() {
		wctx, cancel = context.WithDeadline(ctx, until)
	}
	events, err := w.w.Next(wctx)
	late := wctx.Err() != nil && ctx.Err() == nil
	cancel()
	switch {
	case err == nil:
		return w.take(events)
	case late:
		return w.tick()
	case w.op.custom != nil && w.op.custom.Life().Err() != nil:
		return io.EOF // the kind is another one now, or gone
	case errors.Is(err, storage.ErrCompacted):
		return tooOld(w.rev, err)
	case errors.Is(err, storage.ErrStopped), ctx.Err() != nil:
		return io.EOF
	}
	return apierrors.NewInternalError(err)
}

// tick is reached when the time for a bookmark, or the end, has come.
func (w *Watch) tick() error {
	now := clock.Now()
	if !w.end.IsZero() && !now.Before(w.end) {
		return io.EOF
	}
	w.next = now.Add(bookmarkEvery)
	if w.bookmarks && w.rev > 0 {
		w.queue = append(w.queue, Seen{Type: watch.Bookmark, Rev: w.rev})
	}
	return nil
}

func (w *Watch) take(events []storage.Event) error {
	for i := range events {
		ev := &events[i]
		w.rev = max(w.rev, ev.Rev)
		if ev.Type == storage.Progress {
			continue
		}
		seen, ok, err := w.judge(ev)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		if ok {
			w.queue = append(w.queue, seen)
		}
	}
	return nil
}

// judge says what a change is to someone who sees only what he selected.
func (w *Watch) judge(ev *storage.Event) (Seen, bool, error) {
	if ev.Type == storage.Deleted {
		ok, err := w.sel.matchRecord(ev.Record)
		return Seen{Type: watch.Deleted, Rec: ev.Record}, ok, err
	}
	now, err := w.sel.matchRecord(ev.Record)
	if err != nil {
		return Seen{}, false, err
	}
	before := false
	if ev.Prev != nil {
		if before, err = w.sel.matchRecord(ev.Prev); err != nil {
			return Seen{}, false, err
		}
	}
	switch {
	case now && before:
		return Seen{Type: watch.Modified, Rec: ev.Record}, true, nil
	case now:
		return Seen{Type: watch.Added, Rec: ev.Record}, true, nil
	case before:
		// It left the selection: the watcher sees it go as he last saw it.
		return Seen{Type: watch.Deleted, Rec: &storage.Record{Key: ev.Prev.Key, Value: ev.Prev.Value, Rev: ev.Record.Rev}}, true, nil
	}
	return Seen{}, false, nil
}

// Stop frees the watch.
func (w *Watch) Stop() {
	w.release()
	w.w.Stop()
}

// bookmark returns the object of a bookmark event, of the served version.
func (o *Op) bookmark(s Seen) api.Object {
	obj := o.NewObject()
	api.SetKind(obj, o.GVK)
	obj.SetResourceVersion(strconv.FormatInt(s.Rev, 10))
	if s.InitialEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return obj
}

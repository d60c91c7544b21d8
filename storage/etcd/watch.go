package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// progressEvery is how often an idle watcher that wants it asks for progress.
const progressEvery = 5 * time.Second

// Watch implements storage.Store.
func (s *Store) Watch(ctx context.Context, prefix string, o storage.WatchOptions) (storage.Watcher, error) {
	if o.Index != "" {
		return nil, storage.ErrNoIndex
	}
	from := []byte(prefix)
	if prefix == "" {
		from = []byte{0}
	}
	st, err := s.b.watch(ctx, from, prefixEnd(prefix), o)
	if err != nil {
		return nil, explain(ctx, "watch", prefix, err)
	}
	return &watcher{st: st, prefix: prefix, o: o, told: o.After, stop: make(chan struct{})}, nil
}

type watcher struct {
	st     stream
	prefix string
	o      storage.WatchOptions
	told   int64 // the last revision the caller heard of
	stop   chan struct{}
	once   sync.Once
	buf    []storage.Event
}

// Stop implements storage.Watcher.
func (w *watcher) Stop() {
	w.once.Do(func() {
		close(w.stop)
		w.st.close()
	})
}

// RequestProgress implements storage.ProgressRequester.
func (w *watcher) RequestProgress(ctx context.Context) { w.st.requestProgress(ctx) }

// Next implements storage.Watcher.
func (w *watcher) Next(ctx context.Context) ([]storage.Event, error) {
	for {
		b, err := w.recv(ctx)
		select {
		case <-w.stop:
			return nil, storage.ErrStopped
		default:
		}
		switch {
		case err != nil:
			return nil, explain(ctx, "watch", w.prefix, err)
		case b.idle:
			w.st.requestProgress(ctx)
		case len(b.events) > 0:
			if err := w.changes(b); err != nil {
				return nil, err
			}
			if b.progress > w.told {
				w.buf = append(w.buf, w.progress(b))
			}
			return w.buf, nil
		case b.progress > w.told:
			return append(w.buf[:0], w.progress(b)), nil
		}
	}
}

func (w *watcher) recv(ctx context.Context) (batch, error) {
	var idle <-chan time.Time
	if w.o.Progress {
		t := clock.NewTimer(progressEvery)
		defer t.Stop()
		idle = t.C
	}
	return w.st.recv(ctx, w.stop, idle)
}

func (w *watcher) progress(b batch) storage.Event {
	w.told = b.progress
	return storage.Event{Type: storage.Progress, Rev: b.progress}
}

func (w *watcher) changes(b batch) error {
	w.buf = w.buf[:0]
	for _, e := range b.events {
		if w.o.NoPrev || created(e) {
			w.buf = append(w.buf, event(e, nil))
			continue
		}
		prev := b.prev(e)
		if prev == nil { // compacted: without it an update would look like a creation
			return storage.ErrCompacted
		}
		w.buf = append(w.buf, event(e, prev))
	}
	w.told = w.buf[len(w.buf)-1].Rev
	return nil
}

// errLost says that a stream ended without a reason of ours.
var errLost = errors.New("the watch was closed by etcd")

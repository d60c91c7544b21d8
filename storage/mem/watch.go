package mem

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// batch bounds what one Next looks at while it holds the lock.
const batch = 1000

// Watch implements storage.Store.
func (s *Store) Watch(ctx context.Context, prefix string, o storage.WatchOptions) (storage.Watcher, error) {
	if o.Index != "" {
		return nil, storage.ErrNoIndex
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o.After < s.base {
		// The changes above After are all known only if none was compacted; at
		// the very beginning there was nothing to forget.
		if !(s.base == 1 && o.After >= 0) {
			return nil, storage.ErrCompacted
		}
	}
	return &watcher{
		s: s, prefix: prefix, after: max(o.After, 1), told: o.After, toldAt: clock.Now(), progress: o.Progress,
		asked: make(chan struct{}, 1), stop: make(chan struct{}),
	}, ctx.Err()
}

type watcher struct {
	s        *Store
	prefix   string
	after    int64 // changes up to here were looked at
	told     int64 // the last revision the caller heard of
	toldAt   time.Time
	owed     bool // progress was asked for and not told yet
	progress bool
	buf      []storage.Event
	asked    chan struct{}
	stop     chan struct{}
	once     sync.Once
}

// Stop implements storage.Watcher.
func (w *watcher) Stop() { w.once.Do(func() { close(w.stop) }) }

// RequestProgress implements storage.ProgressRequester.
func (w *watcher) RequestProgress(context.Context) {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

// Next implements storage.Watcher.
func (w *watcher) Next(ctx context.Context) ([]storage.Event, error) {
	for {
		select {
		case <-w.stop:
			return nil, storage.ErrStopped
		default:
		}
		wake, more, err := w.collect()
		if err != nil {
			return nil, err
		}
		if len(w.buf) > 0 {
			w.toldAt = clock.Now()
			return w.buf, nil
		}
		if more {
			continue
		}
		due := w.progress && w.after > w.told && clock.Since(w.toldAt) >= progressEvery
		if w.owed || due {
			w.owed, w.told, w.toldAt = false, w.after, clock.Now()
			return append(w.buf, storage.Event{Type: storage.Progress, Rev: w.after}), nil
		}
		if err := w.wait(ctx, wake); err != nil {
			return nil, err
		}
	}
}

// wait returns when there may be something to tell.
func (w *watcher) wait(ctx context.Context, wake <-chan struct{}) error {
	var idle <-chan time.Time
	if w.progress && w.after > w.told {
		t := clock.NewTimer(progressEvery - clock.Since(w.toldAt))
		defer t.Stop()
		idle = t.C
	}
	select {
	case <-idle:
		return nil
	case <-wake:
		return nil
	case <-w.asked:
		w.owed = true
		return nil
	case <-w.stop:
		return storage.ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// collect fills buf with the next matching changes; more says it did not look
// at all there are.
func (w *watcher) collect() (wake <-chan struct{}, more bool, err error) {
	w.buf = w.buf[:0]
	w.s.mu.RLock()
	defer w.s.mu.RUnlock()
	if w.after < w.s.base {
		return nil, false, storage.ErrCompacted
	}
	for i := w.after - w.s.base; i < int64(len(w.s.log)); i++ {
		if len(w.buf) == batch {
			return nil, true, nil
		}
		e := w.s.log[i]
		w.after = e.Rev
		if strings.HasPrefix(e.Record.Key, w.prefix) {
			w.buf = append(w.buf, e)
			w.told = e.Rev
		}
	}
	return w.s.wake, false, nil
}

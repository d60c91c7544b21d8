package cache

import (
	"context"
	"sort"
	"strings"
	"sync"

	"github.com/sampan-dev/sampan/storage"
)

// atOnce bounds how many changes one Next delivers, and so how long it holds
// the lock.
const atOnce = 512

// Watch implements storage.Store.
func (c *Cache) Watch(ctx context.Context, prefix string, o storage.WatchOptions) (storage.Watcher, error) {
	s := c.find(prefix)
	if s == nil {
		return c.store.Watch(ctx, prefix, o)
	}
	if o.Index != "" && o.Index != storage.KeyIndex && s.indexes[o.Index] == nil {
		return nil, storage.ErrNoIndex
	}
	if err := s.awaitReady(ctx); err != nil {
		return nil, err
	}
	w := &watcher{
		s: s, prefix: prefix, after: o.After, told: o.After, progress: o.Progress,
		stop: make(chan struct{}), asked: make(chan struct{}, 1),
	}
	switch {
	case o.Index != "":
		w.tag = tag{o.Index, o.Value}
	case prefix != s.prefix && strings.HasSuffix(prefix, "/"):
		w.tag = tag{dirIndex, prefix}
	}
	return w, w.place()
}

// watcher is a cursor into a resource's log, or into a sublog.
type watcher struct {
	s      *space
	prefix string
	tag    tag   // whose sublog is followed; zero for the whole log
	after  int64 // changes up to here are not delivered
	seq    uint64
	sub    *sublog
	early  []storage.Event // of the time before the sublog was followed

	progress bool
	owed     bool  // progress was asked for
	told     int64 // the last revision the caller heard of

	buf   []storage.Event
	asked chan struct{}
	stop  chan struct{}
	once  sync.Once
}

// place finds the first change to deliver.
func (w *watcher) place() error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.after < s.base || s.gone {
		w.once.Do(func() { close(w.stop) })
		return &storage.CompactedError{Base: s.base}
	}
	i := sort.Search(len(s.log), func(i int) bool { return s.log[i].ev.Rev > w.after })
	if w.tag == (tag{}) {
		w.seq = s.first + uint64(i)
		return nil
	}
	for ; i < len(s.log); i++ {
		if w.matches(&s.log[i]) {
			w.early = append(w.early, s.log[i].ev)
		}
	}
	sub := s.subs[w.tag]
	if sub == nil {
		sub = &sublog{tag: w.tag}
		s.subs[w.tag] = sub
	}
	sub.refs++
	w.sub, w.seq = sub, sub.first+uint64(len(sub.seqs))
	return nil
}

func (w *watcher) matches(e *entry) bool {
	key := e.ev.Record.Key
	if e.ev.Rev <= w.after || !strings.HasPrefix(key, w.prefix) {
		return false
	}
	return w.tag == (tag{}) || filed(key, e.tags, w.tag) || filed(key, e.prevTags, w.tag)
}

// Stop implements storage.Watcher.
func (w *watcher) Stop() {
	w.once.Do(func() {
		close(w.stop)
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		if w.sub != nil {
			if w.sub.refs--; w.sub.refs == 0 {
				delete(w.s.subs, w.sub.tag)
			}
		}
	})
}

// RequestProgress implements storage.ProgressRequester.
func (w *watcher) RequestProgress(context.Context) {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

// Next implements storage.Watcher.
func (w *watcher) Next(ctx context.Context) ([]storage.Event, error) {
	c := w.s.c
	ticked := false
	for {
		select {
		case <-w.stop:
			return nil, storage.ErrStopped
		default:
		}
		// Everything announced is taken hold of before it is looked at.
		news, tick, moved := w.bell().wait(), (<-chan struct{})(nil), (<-chan struct{})(nil)
		if w.progress {
			tick = c.tick.wait()
		}
		if w.owed {
			moved = c.revBell.wait()
		}
		reached := c.rev.Load()
		if err := w.collect(); err != nil {
			return nil, err
		}
		if len(w.buf) > 0 {
			w.told = w.buf[len(w.buf)-1].Rev
			w.s.met.dispatched.Add(float64(len(w.buf)))
			return w.buf, nil
		}
		if (w.owed || ticked) && reached > w.told {
			w.owed, w.told = false, reached
			return append(w.buf, storage.Event{Type: storage.Progress, Rev: reached}), nil
		}
		ticked = false
		if w.progress && reached > w.told {
			c.startTick()
		}
		select {
		case <-news:
		case <-moved:
		case <-tick:
			ticked = true
		case <-w.asked:
			w.owed = true
		case <-w.stop:
			return nil, storage.ErrStopped
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *watcher) bell() *bell {
	if w.sub != nil {
		return &w.sub.bell
	}
	return &w.s.changed
}

// collect fills buf with the next changes, if any.
func (w *watcher) collect() error {
	w.buf = w.buf[:0]
	s := w.s
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(w.early) > 0 {
		n := min(len(w.early), atOnce)
		w.buf = append(w.buf, w.early[:n]...)
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
		return nil
	}
	if w.sub != nil {
		return w.collectSub()
	}
	if w.seq < s.first {
		return &storage.CompactedError{Base: s.base}
	}
	for ; w.seq-s.first < uint64(len(s.log)) && len(w.buf) < atOnce; w.seq++ {
		if e := &s.log[w.seq-s.first]; w.matches(e) {
			w.buf = append(w.buf, e.ev)
		}
	}
	return nil
}

func (w *watcher) collectSub() error {
	s, sub := w.s, w.sub
	if w.seq < sub.first {
		return &storage.CompactedError{Base: s.base}
	}
	for ; w.seq-sub.first < uint64(len(sub.seqs)) && len(w.buf) < atOnce; w.seq++ {
		seq := sub.seqs[w.seq-sub.first]
		if seq < s.first {
			return &storage.CompactedError{Base: s.base}
		}
		if e := &s.log[seq-s.first]; w.matches(e) {
			w.buf = append(w.buf, e.ev)
		}
	}
	return nil
}

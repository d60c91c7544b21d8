package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidwall/btree"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
)

// retry is how the cache comes back to a store that fails.
var retry = backoff.Policy{First: 50 * time.Millisecond, Max: 5 * time.Second}

// Run feeds the cache until ctx ends. Whatever the store does, it comes back:
// where it was if the store still knows, else with a new list.
func (c *Cache) Run(ctx context.Context) error {
	for failures := 0; ; {
		began := clock.Now()
		err := c.follow(ctx)
		c.following.Store(false)
		c.revBell.ring() // who waits for progress asks the store instead
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, storage.ErrCompacted) && c.rev.Load() > 0 {
			c.cfg.Log.Warn("the watch cache fell behind; listing again", "rev", c.rev.Load())
			c.rev.Store(0)
			continue
		}
		if failures++; clock.Since(began) > time.Minute {
			failures = 1
		}
		c.cfg.Log.Warn("the watch cache lost the store; trying again", "err", err)
		if err := clock.Sleep(ctx, retry.After(failures)); err != nil {
			return err
		}
	}
}

// follow watches the store from where the cache is, or from now if it is
// nowhere, until the watch fails.
func (c *Cache) follow(ctx context.Context) error {
	from := c.rev.Load()
	if from == 0 {
		rev, err := c.store.Rev(ctx)
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		for _, s := range *c.spaces.Load() {
			s.distrust()
		}
		from = rev
	}
	w, err := c.store.Watch(ctx, c.cfg.Prefix, storage.WatchOptions{After: from, NoPrev: true})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer w.Stop()
	c.feed.Store(&w)
	c.asked.Store(0)
	c.advance(from)
	c.following.Store(true)
	g := run.New(ctx)
	g.Go("watch cache load", c.load)
	defer func() {
		g.Stop()
		_ = g.Wait() // load ends only with its context
	}()
	for {
		evs, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		c.receive(evs)
	}
}

// receive hands changes to their resources, then wakes who follows them.
func (c *Cache) receive(evs []storage.Event) {
	var touched []*space
	var s *space
	for i := range evs {
		e := &evs[i]
		if e.Type == storage.Progress {
			continue
		}
		if s == nil || len(e.Record.Key) < len(s.prefix) || e.Record.Key[:len(s.prefix)] != s.prefix {
			if s = c.find(e.Record.Key); s == nil {
				continue
			}
		}
		if !slices.Contains(touched, s) {
			touched = append(touched, s)
		}
		s.receive(*e)
	}
	// Progress first: a woken reader finds the cache as new as its resource.
	c.advance(evs[len(evs)-1].Rev)
	for _, s := range touched {
		s.ring()
	}
}

// advance says that every change up to rev was received.
func (c *Cache) advance(rev int64) {
	if rev <= c.rev.Load() {
		return
	}
	c.rev.Store(rev)
	c.own.pass(rev)
	c.revBell.ring()
	if c.tick.awaited() {
		c.startTick()
	}
}

// startTick makes the tick bell ring once, in a while.
func (c *Cache) startTick() {
	if c.ticking.CompareAndSwap(false, true) {
		clock.AfterFunc(c.cfg.Progress, func() {
			c.ticking.Store(false)
			c.tick.ring()
		})
	}
}

// load lists the resources that are cold, now and whenever some are registered.
func (c *Cache) load(ctx context.Context) error {
	for failures := 0; ; {
		newcome := c.newcome.wait()
		failed := false
		for _, s := range *c.spaces.Load() {
			if s.isReady.Load() {
				continue
			}
			if err := s.load(ctx); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				c.cfg.Log.Warn("the watch cache cannot list; trying again", "prefix", s.prefix, "err", err)
				failed = true
			}
		}
		if failed {
			failures++
			if err := clock.Sleep(ctx, retry.After(failures)); err != nil {
				return err
			}
			continue
		}
		failures = 0
		select {
		case <-newcome:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Synced returns when every resource registered so far is in memory.
func (c *Cache) Synced(ctx context.Context) error {
	for _, s := range *c.spaces.Load() {
		if err := s.awaitReady(ctx); err != nil {
			return fmt.Errorf("cache: sync: %s: %w", s.prefix, err)
		}
	}
	return nil
}

// Ready says, for a health check, whether everything is in memory and followed.
func (c *Cache) Ready() error {
	if !c.following.Load() {
		return errors.New("cache: the store is not being followed")
	}
	for _, s := range *c.spaces.Load() {
		if !s.isReady.Load() {
			return fmt.Errorf("cache: %s is not loaded", s.prefix)
		}
	}
	return nil
}

// awaitReady waits until the resource can be read.
func (s *space) awaitReady(ctx context.Context) error {
	for {
		next := s.newState.wait()
		if s.isReady.Load() {
			return nil
		}
		s.mu.RLock()
		gone := s.gone
		s.mu.RUnlock()
		if gone {
			return storage.ErrCompacted
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// distrust marks what the space knows as possibly outdated.
func (s *space) distrust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.buffer = cold, nil
	s.isReady.Store(false)
}

// loadPage is how many records one list asks for.
const loadPage = 10_000

// load lists the resource while changes are buffered, and joins both.
func (s *space) load(ctx context.Context) error {
	s.mu.Lock()
	s.state, s.buffer = loading, nil
	s.mu.Unlock()
	var records []*storage.Record
	o := storage.ListOptions{Limit: loadPage}
	for {
		done := s.met.time("list")
		p, err := s.c.store.List(ctx, s.prefix, o)
		done()
		if err != nil {
			s.distrust()
			return err
		}
		records = append(records, p.Records...)
		o.Rev, o.Match = p.Rev, storage.AtExact
		if !p.More {
			break
		}
		o.After = records[len(records)-1].Key
	}
	s.settle(records, o.Rev)
	s.newState.ring()
	s.ring()
	s.met.initializations.Inc()
	return nil
}

// settle makes records, as of rev, the state, and the buffered changes the
// first in the log. If nothing changed since the space was last trusted, its
// watchers keep their places.
func (s *space) settle(records []*storage.Record, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	if same := s.adopt(records); !same || s.base == 0 {
		s.cut(rev)
	}
	// The way from the last change to the list is not known: nobody may begin
	// there, and there is no state to show from there.
	s.rev, s.loaded, s.base, s.olds = rev, rev, rev, nil
	s.snap.Store(nil)
	for _, e := range s.buffer {
		s.apply(e)
	}
	s.buffer, s.state = nil, ready
	s.isReady.Store(true)
}

// adopt makes records the tree, keeping the records (and so the derived forms)
// that are the same versions. It reports whether all are.
func (s *space) adopt(records []*storage.Record) bool {
	same := len(records) == s.tree.Len()
	t := btree.NewMap[string, *item](0)
	s.indexed = map[tag]*tree{}
	total := int64(0)
	for _, r := range records {
		total += int64(len(r.Value))
		it, ok := s.tree.Get(r.Key)
		if !ok || it.rec.Rev != r.Rev {
			same = false
			it = &item{rec: r, tags: s.tagsOf(r)}
		}
		t.Load(r.Key, it)
		s.file(nil, it)
	}
	s.tree = t
	s.valueBytes.Store(total)
	return same
}

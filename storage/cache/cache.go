package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// Cache is a storage.Store in front of another. Make one with New, Register the
// resources, then Run it.
type Cache struct {
	cfg   Config
	store storage.Store
	met   *metrics
	own   own

	mu      sync.Mutex // of registration
	spaces  atomic.Pointer[[]*space]
	newcome bell // a resource was registered

	rev       atomic.Int64 // every change up to here was received
	revBell   bell
	tick      bell // rung now and then while there is progress
	ticking   atomic.Bool
	following atomic.Bool
	feed      atomic.Pointer[storage.Watcher]
	asked     atomic.Int64 // progress to here was asked of the feed
}

var (
	_ storage.Store     = (*Cache)(nil)
	_ storage.Compactor = (*Cache)(nil)
)

// New returns a cache of store that is not running yet.
func New(store storage.Store, cfg Config) (*Cache, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	cfg.fill()
	c := &Cache{cfg: cfg, store: store}
	c.spaces.Store(&[]*space{})
	met, err := newMetrics(c)
	if err != nil {
		return nil, fmt.Errorf("cache: metrics: %w", err)
	}
	c.met = met
	return c, nil
}

// Register makes the keys below prefix, which ends with "/", one resource that
// is held in memory. Records are decoded for the indexes through their forms.
// Registering it again changes nothing.
func (c *Cache) Register(prefix string, indexes map[string]func(*storage.Record) []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.spaces.Load()
	i, found := slices.BinarySearchFunc(old, prefix, func(s *space, p string) int { return cmp.Compare(s.prefix, p) })
	if found {
		return
	}
	spaces := slices.Insert(slices.Clone(old), i, newSpace(c, prefix, indexes))
	c.spaces.Store(&spaces)
	c.newcome.ring()
}

// Unregister forgets a resource; its watchers get ErrCompacted.
func (c *Cache) Unregister(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var gone *space
	spaces := slices.DeleteFunc(slices.Clone(*c.spaces.Load()), func(s *space) bool {
		if s.prefix == prefix {
			gone = s
		}
		return s.prefix == prefix
	})
	if gone == nil {
		return
	}
	c.spaces.Store(&spaces)
	gone.mu.Lock()
	gone.gone = true
	gone.isReady.Store(false)
	gone.cut(gone.rev)
	gone.mu.Unlock()
	gone.newState.ring()
	gone.ring()
}

// find returns the resource that key, or all keys that begin with it, are of.
func (c *Cache) find(key string) *space {
	spaces := *c.spaces.Load()
	i, found := slices.BinarySearchFunc(spaces, key, func(s *space, k string) int { return cmp.Compare(s.prefix, k) })
	if found {
		return spaces[i]
	}
	if i > 0 && strings.HasPrefix(key, spaces[i-1].prefix) {
		return spaces[i-1]
	}
	return nil
}

// Size says how many records a registered resource has, and how many bytes their
// values are together.
func (c *Cache) Size(prefix string) (records int, bytes int64, ok bool) {
	s := c.find(prefix)
	if s == nil || s.prefix != prefix || !s.isReady.Load() {
		return 0, 0, false
	}
	s.mu.RLock()
	records = s.tree.Len()
	s.mu.RUnlock()
	return records, s.valueBytes.Load(), true
}

// Rev implements storage.Store.
func (c *Cache) Rev(ctx context.Context) (int64, error) { return c.store.Rev(ctx) }

// Get implements storage.Store.
func (c *Cache) Get(ctx context.Context, key string, atLeast int64) (*storage.Record, error) {
	s := c.find(key)
	if s == nil {
		return c.store.Get(ctx, key, atLeast)
	}
	match := storage.AtLeast
	if atLeast == 0 {
		match = storage.Latest
	}
	ok, err := c.reach(ctx, s, match, atLeast)
	if err != nil {
		return nil, err
	}
	if !ok {
		defer s.met.time("get")()
		return c.store.Get(ctx, key, atLeast)
	}
	s.mu.RLock()
	it, found := s.tree.Get(key)
	s.mu.RUnlock()
	if !found {
		return nil, storage.ErrNotFound
	}
	return it.rec, nil
}

// reach waits until s shows what a read of rev must see; false when the store
// behind should be asked instead.
func (c *Cache) reach(ctx context.Context, s *space, m storage.Match, rev int64) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !s.isReady.Load() {
		return false, nil
	}
	if m == storage.Latest {
		now, err := c.store.Rev(ctx)
		if err != nil {
			return false, err
		}
		return c.await(ctx, now)
	}
	if c.rev.Load() >= rev {
		return true, nil
	}
	s.mu.RLock()
	at := s.rev
	s.mu.RUnlock()
	if at >= rev {
		return true, nil
	}
	now, err := c.store.Rev(ctx)
	if err != nil {
		return false, err
	}
	if now < rev {
		return false, storage.ErrFuture
	}
	return c.await(ctx, rev)
}

// askAgain is how long an asked store may be silent: it is when its watch was
// not level with it at the moment of asking.
const askAgain = 100 * time.Millisecond

// await waits until every change up to rev was received; false when that takes
// too long.
func (c *Cache) await(ctx context.Context, rev int64) (bool, error) {
	if c.rev.Load() >= rev {
		return true, nil
	}
	defer c.met.waited()()
	again := clock.NewTimer(askAgain)
	defer again.Stop()
	end := clock.Now().Add(c.cfg.Wait)
	for {
		moved := c.revBell.wait()
		if c.rev.Load() >= rev {
			return true, nil
		}
		if !c.following.Load() {
			return false, nil
		}
		c.ask(ctx, rev, false)
		select {
		case <-moved:
		case <-again.C:
			if clock.Now().After(end) {
				return false, nil
			}
			c.ask(ctx, rev, true)
			again.Reset(askAgain)
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// ask requests progress to rev of the feed, once per revision unless forced.
func (c *Cache) ask(ctx context.Context, rev int64, force bool) {
	for {
		asked := c.asked.Load()
		if asked >= rev && !force {
			return
		}
		if asked >= rev || c.asked.CompareAndSwap(asked, rev) {
			break
		}
	}
	if w := c.feed.Load(); w != nil {
		if p, ok := (*w).(storage.ProgressRequester); ok {
			p.RequestProgress(ctx)
		}
	}
}

// List implements storage.Store.
func (c *Cache) List(ctx context.Context, prefix string, o storage.ListOptions) (*storage.Page, error) {
	s := c.find(prefix)
	if s == nil {
		return c.store.List(ctx, prefix, o)
	}
	if o.Index != "" && o.Index != storage.KeyIndex && s.indexes[o.Index] == nil {
		return nil, storage.ErrNoIndex
	}
	if o.Index != "" {
		if err := s.awaitReady(ctx); err != nil {
			return nil, err
		}
	}
	if o.Match == storage.AtExact && o.Rev == 0 {
		o.Match = storage.Latest
	}
	ok, err := c.reach(ctx, s, o.Match, o.Rev)
	if err != nil {
		return nil, err
	}
	if !ok && o.Index != "" {
		return nil, fmt.Errorf("list: %s: the cache does not keep up with the store", prefix)
	}
	var p *storage.Page
	if ok {
		p, ok = s.list(prefix, o)
	}
	if !ok {
		if o.Index != "" {
			return nil, storage.ErrCompacted
		}
		defer s.met.time("list")()
		return c.store.List(ctx, prefix, o)
	}
	s.met.lists.Inc()
	return p, nil
}

// list reads what was reached; false when the state asked for is gone.
func (s *space) list(prefix string, o storage.ListOptions) (*storage.Page, bool) {
	if o.Index != "" && o.Match != storage.AtExact {
		return s.listIndexed(prefix, o), true
	}
	reached := s.c.rev.Load() // before the state: no change up to it is missing
	snap := snapshot{}
	rev := o.Rev
	if o.Match == storage.AtExact {
		var ok bool
		if snap, ok = s.asOf(o.Rev); !ok {
			return nil, false
		}
	} else {
		snap = s.latest()
		rev = max(reached, snap.rev)
	}
	var keep func(*item) bool
	if tg := (tag{o.Index, o.Value}); o.Index != "" {
		keep = func(it *item) bool { return filed(it.rec.Key, it.tags, tg) }
	}
	p := collect(snap.tree, prefix, o, keep)
	p.Rev = rev
	if p.More {
		p.Remaining = -1
		if keep == nil {
			p.Remaining = int64(snap.rank(prefixEnd(prefix)) - snap.rank(p.Records[len(p.Records)-1].Key) - 1)
		}
	}
	return p, true
}

func (s *space) listIndexed(prefix string, o storage.ListOptions) *storage.Page {
	reached := s.c.rev.Load()
	s.mu.RLock()
	defer s.mu.RUnlock()
	p := &storage.Page{}
	if o.Index == storage.KeyIndex {
		if it, ok := s.tree.Get(o.Value); ok && strings.HasPrefix(o.Value, prefix) && o.Value > o.After {
			p.Records = []*storage.Record{it.rec}
		}
	} else if t := s.indexed[tag{o.Index, o.Value}]; t != nil {
		p = collect(t, prefix, o, nil)
		if p.More {
			p.Remaining = -1
		}
	}
	p.Rev = max(reached, s.rev)
	return p
}

func filed(key string, tags []tag, tg tag) bool {
	switch tg.index {
	case storage.KeyIndex:
		return key == tg.value
	case dirIndex:
		return strings.HasPrefix(key, tg.value)
	}
	return slices.Contains(tags, tg)
}

// prefixEnd is the first key after all that begin with prefix.
func prefixEnd(prefix string) string {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return string(end[:i+1])
		}
	}
	return "\xff\xff\xff\xff\xff"
}

// Create implements storage.Store.
func (c *Cache) Create(ctx context.Context, key string, value []byte, ttl int64) (*storage.Record, error) {
	return c.write(ctx, "create", &write{key: key, value: value}, func(ctx context.Context) (*storage.Record, error) {
		return c.store.Create(ctx, key, value, ttl)
	})
}

// Update implements storage.Store.
func (c *Cache) Update(ctx context.Context, key string, value []byte, expect, ttl int64) (*storage.Record, error) {
	return c.write(ctx, "update", &write{key: key, value: value}, func(ctx context.Context) (*storage.Record, error) {
		return c.store.Update(ctx, key, value, expect, ttl)
	})
}

// Delete implements storage.Store.
func (c *Cache) Delete(ctx context.Context, key string, expect int64) (*storage.Record, error) {
	return c.write(ctx, "delete", &write{key: key, del: true}, func(ctx context.Context) (*storage.Record, error) {
		return c.store.Delete(ctx, key, expect)
	})
}

// write passes a write on and makes its record the one everybody gets.
func (c *Cache) write(ctx context.Context, op string, w *write, do func(context.Context) (*storage.Record, error)) (*storage.Record, error) {
	s := c.find(w.key)
	if s == nil || !s.isReady.Load() {
		return do(ctx)
	}
	w.forms = storage.FormsOf(ctx)
	if w.forms != nil {
		ctx = storage.WithForms(ctx, nil) // the cache calls it, once
	}
	done := s.met.time(op)
	c.own.begin(w)
	r, err := do(ctx)
	r = c.own.end(w, r)
	done()
	if err != nil {
		s.met.failed(op, err)
		return nil, err
	}
	return r, nil
}

// Compact implements storage.Compactor, if the store behind does.
func (c *Cache) Compact(ctx context.Context, rev int64) error {
	s, ok := c.store.(storage.Compactor)
	if !ok {
		return errors.New("compact: the store keeps no history")
	}
	now, err := c.store.Rev(ctx)
	if err != nil {
		return err
	}
	if rev <= now { // what the cache still has to receive must not be lost
		if _, err := c.await(ctx, rev); err != nil {
			return err
		}
	}
	if err := s.Compact(ctx, rev); err != nil {
		return err
	}
	for _, s := range *c.spaces.Load() {
		s.mu.Lock()
		s.forget(sort.Search(len(s.log), func(i int) bool { return s.log[i].ev.Rev > rev }))
		s.base = max(s.base, rev)
		s.olds = nil
		s.mu.Unlock()
	}
	return nil
}

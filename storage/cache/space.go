package cache

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// Indexer returns the values an index files a record under.
type Indexer = func(*storage.Record) []string

// tag is one place a record is filed: an index's name and a value.
type tag struct{ index, value string }

// dirIndex files records under every directory of their key, for watchers of a
// part of a resource (a namespace). It can only be reached by such a prefix.
const dirIndex = "\x00dir"

type item struct {
	rec  *storage.Record
	tags []tag
}

type tree = btree.Map[string, *item]

// snapshot is a state nobody changes any more.
type snapshot struct {
	tree *tree
	rev  int64 // the resource's last change in it
}

// entry is one change in a log.
type entry struct {
	ev             storage.Event
	tags, prevTags []tag
	at             int64 // unix seconds
	size           int64
}

type state uint8

const (
	cold    state = iota // knows nothing, or cannot trust what it knows
	loading              // a list is under way; changes are buffered
	ready
)

// space is one resource: its records, indexes and log.
type space struct {
	c       *Cache
	prefix  string
	indexes map[string]Indexer
	met     spaceMetrics

	isReady  atomic.Bool
	newState bell
	changed  bell // any change of the resource

	mu      sync.RWMutex
	state   state
	gone    bool // was unregistered
	tree    *tree
	indexed map[tag]*tree
	rev     int64 // the last change, or the list the tree began with
	loaded  int64 // the list the tree began with: older changes are in it
	buffer  []storage.Event

	log   []entry
	first uint64 // the sequence number of log[0]
	base  int64  // every change above this revision is in the log
	bytes int64

	valueBytes atomic.Int64 // of all records in the tree

	subs  map[tag]*sublog
	dirty []*sublog // have news since the bells were last rung

	snap atomic.Pointer[snapshot] // of the latest state, nil after a change
	olds []snapshot               // of earlier states, the most recently used last
}

// sublog is the part of a log that watchers of one tag follow.
type sublog struct {
	tag   tag
	refs  int
	seqs  []uint64
	first uint64 // the number of seqs[0]
	bell  bell
	dirty bool
}

func newSpace(c *Cache, prefix string, indexes map[string]Indexer) *space {
	return &space{
		c: c, prefix: prefix, indexes: indexes, met: c.met.space(prefix),
		tree: btree.NewMap[string, *item](0), indexed: map[tag]*tree{}, subs: map[tag]*sublog{},
	}
}

// receive takes one change from the store behind.
func (s *space) receive(e storage.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case loading:
		s.buffer = append(s.buffer, e)
	case ready:
		s.apply(e)
	}
}

// apply makes a change part of the tree and of the log.
func (s *space) apply(e storage.Event) {
	if e.Rev <= s.loaded {
		return
	}
	key := e.Record.Key
	old, _ := s.tree.Get(key)
	if e.Type == storage.Deleted && old == nil {
		return // was made and removed before the list the tree began with
	}
	en := entry{at: clock.Now().Unix()}
	var last *storage.Record
	if old != nil {
		last, en.prevTags = old.rec, old.tags
	}
	if e.Type == storage.Deleted {
		rec := &storage.Record{Key: key, Value: last.Value, Rev: e.Rev}
		rec = s.c.own.see(rec, true)
		en.ev = storage.Event{Type: storage.Deleted, Record: rec, Prev: last, Rev: e.Rev}
		en.size = 200 + int64(len(key))
		s.tree.Delete(key)
		s.valueBytes.Add(-int64(len(last.Value)))
		s.file(old, nil)
	} else {
		rec := s.c.own.see(e.Record, false)
		it := &item{rec: rec, tags: s.tagsOf(rec)}
		en.ev = storage.Event{Type: storage.Put, Record: rec, Prev: last, Rev: e.Rev}
		en.tags = it.tags
		en.size = 200 + int64(len(key)+len(rec.Value))
		s.tree.Set(key, it)
		s.valueBytes.Add(int64(len(rec.Value)))
		if last != nil {
			s.valueBytes.Add(-int64(len(last.Value)))
		}
		s.file(old, it)
	}
	s.rev = e.Rev
	s.snap.Store(nil)
	s.append(en)
	s.met.received.Inc()
}

func (s *space) tagsOf(r *storage.Record) []tag {
	var tags []tag
	for name, fn := range s.indexes {
		for _, v := range fn(r) {
			tags = append(tags, tag{name, v})
		}
	}
	return tags
}

// file moves a key from where old was indexed to where it is now.
func (s *space) file(old, now *item) {
	if old != nil {
		for _, tg := range old.tags {
			if now != nil && slices.Contains(now.tags, tg) {
				continue
			}
			if t := s.indexed[tg]; t != nil {
				if t.Delete(old.rec.Key); t.Len() == 0 {
					delete(s.indexed, tg)
				}
			}
		}
	}
	if now != nil {
		for _, tg := range now.tags {
			t := s.indexed[tg]
			if t == nil {
				t = btree.NewMap[string, *item](8)
				s.indexed[tg] = t
			}
			t.Set(now.rec.Key, now)
		}
	}
}

// append adds to the log and to the sublogs somebody follows.
func (s *space) append(en entry) {
	seq := s.first + uint64(len(s.log))
	s.log = append(s.log, en)
	s.bytes += en.size
	if len(s.subs) > 0 {
		s.route(seq, &en)
	}
	s.trim(en.at)
}

func (s *space) route(seq uint64, en *entry) {
	key := en.ev.Record.Key
	s.add(seq, tag{storage.KeyIndex, key})
	for i := len(s.prefix); i < len(key); i++ {
		if key[i] == '/' {
			s.add(seq, tag{dirIndex, key[:i+1]})
		}
	}
	for _, tg := range en.tags {
		s.add(seq, tg)
	}
	for _, tg := range en.prevTags {
		s.add(seq, tg)
	}
}

func (s *space) add(seq uint64, tg tag) {
	sub := s.subs[tg]
	if sub == nil || len(sub.seqs) > 0 && sub.seqs[len(sub.seqs)-1] == seq {
		return
	}
	drop := 0
	for drop < len(sub.seqs) && sub.seqs[drop] < s.first {
		drop++
	}
	sub.seqs = append(sub.seqs[drop:], seq)
	sub.first += uint64(drop)
	if !sub.dirty {
		sub.dirty = true
		s.dirty = append(s.dirty, sub)
	}
}

// trim forgets the oldest changes beyond the bounds, at least an eighth of what
// is too much at a time, so that it costs little per change.
func (s *space) trim(now int64) {
	cfg := &s.c.cfg
	oldest := now - int64(cfg.MaxAge.Seconds())
	over := func(i int, bytes int64, slack int64) bool {
		left := int64(len(s.log) - i)
		return left > int64(cfg.MaxEvents)*slack/8 || bytes > cfg.MaxBytes*slack/8 || s.log[i].at < oldest
	}
	if !over(0, s.bytes, 8) {
		return
	}
	n, bytes := 0, s.bytes
	for n < len(s.log)-1 && over(n, bytes, 7) {
		bytes -= s.log[n].size
		n++
	}
	s.forget(n)
}

// forget drops the first n changes.
func (s *space) forget(n int) {
	if n == 0 {
		return
	}
	for i := range s.log[:n] {
		s.bytes -= s.log[i].size
	}
	s.base = max(s.base, s.log[n-1].ev.Rev)
	clear(s.log[:n])
	s.log = s.log[n:]
	s.first += uint64(n)
	s.olds = slices.DeleteFunc(s.olds, func(o snapshot) bool { return o.rev < s.base })
}

// cut forgets the whole log: the changes up to rev are not known one by one.
// Every watcher there is loses its place.
func (s *space) cut(rev int64) {
	s.first += uint64(len(s.log)) + 1
	s.log, s.bytes, s.base, s.olds = nil, 0, max(s.base, rev), nil
	for _, sub := range s.subs {
		sub.first += uint64(len(sub.seqs)) + 1
		sub.seqs = nil
		if !sub.dirty {
			sub.dirty = true
			s.dirty = append(s.dirty, sub)
		}
	}
}

// ring wakes who follows what changed since the last call.
func (s *space) ring() {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = nil
	for _, sub := range dirty {
		sub.dirty = false
	}
	s.mu.Unlock()
	for _, sub := range dirty {
		sub.bell.ring()
	}
	s.changed.ring()
}

// latest returns the state now.
func (s *space) latest() snapshot {
	if p := s.snap.Load(); p != nil {
		return *p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.freeze()
}

// freeze is latest for who holds the lock.
func (s *space) freeze() snapshot {
	if p := s.snap.Load(); p != nil {
		return *p
	}
	p := &snapshot{tree: s.tree.Copy(), rev: s.rev}
	s.snap.Store(p)
	return *p
}

// keepOlds is how many earlier states are kept for the pages of lists.
const keepOlds = 8

// asOf returns the state at rev, which must have been reached; false when the
// log does not reach back so far.
func (s *space) asOf(rev int64) (snapshot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev < s.base {
		return snapshot{}, false
	}
	if rev >= s.rev {
		return s.freeze(), true
	}
	// The state did not change between the last change up to rev and rev.
	n := sort.Search(len(s.log), func(i int) bool { return s.log[i].ev.Rev > rev })
	at := s.base
	if n > 0 {
		at = s.log[n-1].ev.Rev
	}
	for i, o := range s.olds {
		if o.rev == at {
			s.olds = append(slices.Delete(s.olds, i, i+1), o)
			return o, true
		}
	}
	t := s.tree.Copy()
	for i := len(s.log) - 1; i >= n; i-- {
		if e := &s.log[i]; e.ev.Prev != nil {
			t.Set(e.ev.Record.Key, &item{rec: e.ev.Prev, tags: e.prevTags})
		} else {
			t.Delete(e.ev.Record.Key)
		}
	}
	o := snapshot{tree: t, rev: at}
	if len(s.olds) == keepOlds {
		s.olds = slices.Delete(s.olds, 0, 1)
	}
	s.olds = append(s.olds, o)
	return o, true
}

// rank returns how many keys are below key.
func (o snapshot) rank(key string) int {
	return sort.Search(o.tree.Len(), func(i int) bool {
		k, _, _ := o.tree.GetAt(i)
		return k >= key
	})
}

// collect reads a page of t; keep is nil for all records.
func collect(t *tree, prefix string, o storage.ListOptions, keep func(*item) bool) *storage.Page {
	p := &storage.Page{}
	if o.After == "" && o.Limit == 0 && keep == nil {
		p.Records = make([]*storage.Record, 0, t.Len())
	}
	t.Ascend(max(prefix, o.After), func(k string, it *item) bool {
		switch {
		case k == o.After:
			return true
		case !strings.HasPrefix(k, prefix):
			return false
		case keep != nil && !keep(it):
			return true
		case o.Limit > 0 && len(p.Records) == o.Limit:
			p.More = true
			return false
		}
		p.Records = append(p.Records, it.rec)
		return true
	})
	return p
}

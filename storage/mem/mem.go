// Package mem keeps records in memory, with their history.
//
// Job: a storage.Store for tests and for clusters nobody will miss. It is the
// simplest implementation that is right: one lock, one tree, one log.
//
// Not its job: outliving the process.
//
// Invariants: log holds every change of revisions base to rev, one a revision,
// so the state at any revision from base on is the tree with later changes
// undone.
package mem

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// progressEvery is how often an idle watcher that wants it hears of progress.
const progressEvery = time.Second

// maxValue is etcd's limit of a request, so that tests meet it here too.
const maxValue = 3 << 19

type tree = btree.Map[string, *storage.Record]

// Store is the store. Make one with New.
type Store struct {
	mu   sync.RWMutex
	tree *tree
	rev  int64
	base int64           // the oldest revision whose state is known
	log  []storage.Event // the changes of revisions base+1 to rev
	wake chan struct{}   // closed by the next change
}

var (
	_ storage.Store     = (*Store)(nil)
	_ storage.Compactor = (*Store)(nil)
)

// New returns an empty store at revision 1.
func New() *Store {
	return &Store{tree: btree.NewMap[string, *storage.Record](0), rev: 1, base: 1, wake: make(chan struct{})}
}

// Rev implements storage.Store.
func (s *Store) Rev(ctx context.Context) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rev, ctx.Err()
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, atLeast int64) (*storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if atLeast > s.rev {
		return nil, storage.ErrFuture
	}
	if r, ok := s.tree.Get(key); ok {
		return r, nil
	}
	return nil, storage.ErrNotFound
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix string, o storage.ListOptions) (*storage.Page, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Index != "" {
		return nil, storage.ErrNoIndex
	}
	t, rev, err := s.stateFor(o)
	if err != nil {
		return nil, err
	}
	p := &storage.Page{Rev: rev}
	pivot := max(prefix, o.After)
	t.Ascend(pivot, func(k string, r *storage.Record) bool {
		switch {
		case k == o.After && o.After != "":
			return true
		case !strings.HasPrefix(k, prefix):
			return false
		case o.Limit > 0 && len(p.Records) == o.Limit:
			p.More = true
			p.Remaining++
			return true
		}
		p.Records = append(p.Records, r)
		return true
	})
	return p, nil
}

// stateFor returns a tree nobody changes any more and the revision it shows.
func (s *Store) stateFor(o storage.ListOptions) (*tree, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Match != storage.Latest && o.Rev > s.rev {
		return nil, 0, storage.ErrFuture
	}
	t := s.tree.Copy()
	if o.Match != storage.AtExact || o.Rev == 0 {
		return t, s.rev, nil
	}
	if o.Rev < s.base {
		return nil, 0, storage.ErrCompacted
	}
	for i := len(s.log) - 1; i >= 0 && s.log[i].Rev > o.Rev; i-- {
		if e := s.log[i]; e.Prev != nil {
			t.Set(e.Record.Key, e.Prev)
		} else {
			t.Delete(e.Record.Key)
		}
	}
	return t, o.Rev, nil
}

// Create implements storage.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, ttl int64) (*storage.Record, error) {
	if err := check(ctx, value); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tree.Get(key); ok {
		return nil, storage.ErrExists
	}
	return s.put(ctx, key, value, ttl), nil
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, key string, value []byte, expect, ttl int64) (*storage.Record, error) {
	if err := check(ctx, value); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.expect(key, expect); err != nil {
		return nil, err
	}
	return s.put(ctx, key, value, ttl), nil
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string, expect int64) (*storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.expect(key, expect); err != nil {
		return nil, err
	}
	return s.remove(ctx, key), nil
}

func check(ctx context.Context, value []byte) error {
	if len(value) > maxValue {
		return storage.ErrTooLarge
	}
	return ctx.Err()
}

func (s *Store) expect(key string, rev int64) (*storage.Record, error) {
	cur, ok := s.tree.Get(key)
	switch {
	case !ok:
		return nil, storage.ErrNotFound
	case cur.Rev != rev:
		return nil, &storage.ConflictError{Current: cur}
	}
	return cur, nil
}

func (s *Store) put(ctx context.Context, key string, value []byte, ttl int64) *storage.Record {
	r := &storage.Record{Key: key, Value: bytes.Clone(value), Rev: s.rev + 1}
	prev, _ := s.tree.Set(key, r)
	s.append(ctx, storage.Event{Type: storage.Put, Record: r, Prev: prev, Rev: r.Rev})
	if ttl > 0 {
		clock.AfterFunc(time.Duration(ttl)*time.Second, func() { s.expire(key, r.Rev) })
	}
	return r
}

func (s *Store) remove(ctx context.Context, key string) *storage.Record {
	prev, _ := s.tree.Delete(key)
	r := &storage.Record{Key: key, Value: prev.Value, Rev: s.rev + 1}
	s.append(ctx, storage.Event{Type: storage.Deleted, Record: r, Prev: prev, Rev: r.Rev})
	return r
}

// expire removes a record whose time is over, unless it was written since.
func (s *Store) expire(key string, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.expect(key, rev); err == nil {
		s.remove(context.Background(), key)
	}
}

func (s *Store) append(ctx context.Context, e storage.Event) {
	if fn := storage.FormsOf(ctx); fn != nil {
		fn(e.Record)
	}
	s.rev = e.Rev
	s.log = append(s.log, e)
	close(s.wake)
	s.wake = make(chan struct{})
}

// Compact implements storage.Compactor.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.rev {
		return storage.ErrFuture
	}
	if rev <= s.base {
		return ctx.Err()
	}
	s.log = append([]storage.Event(nil), s.log[rev-s.base:]...)
	s.base = rev
	close(s.wake)
	s.wake = make(chan struct{})
	return ctx.Err()
}

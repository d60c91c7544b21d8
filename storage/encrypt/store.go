package encrypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kit/watchfile"
	"github.com/sampan-dev/sampan/storage"
)

// Config says what is encrypted, and how.
type Config struct {
	// File is an EncryptionConfiguration.
	File string
	// Reload takes over changes of the file while running.
	Reload bool
	// Resource says which resource is stored at a key.
	Resource func(key string) (group, resource string)
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Store encrypts what it gives to the store behind.
type Store struct {
	c     Config
	store storage.Store
	rules atomic.Pointer[rules]
	met   *metrics
	next  chan *rules // to be in force
}

var (
	_ storage.Store     = (*Store)(nil)
	_ storage.Compactor = (*Store)(nil)
)

// New reads the configuration. The store works when Run was called, as far as
// KMS providers are concerned.
func New(store storage.Store, c Config) (*Store, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{c: c, store: store, met: newMetrics(c.Metrics), next: make(chan *rules, 1)}
	r, err := s.read()
	if err != nil {
		return nil, fmt.Errorf("--encryption-provider-config: %w", err)
	}
	s.rules.Store(r)
	return s, nil
}

func (s *Store) read() (*rules, error) {
	text, err := os.ReadFile(s.c.File)
	if err != nil {
		return nil, fmt.Errorf("error reading encryption provider configuration file %q: %w", s.c.File, err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("error while parsing file: %w", err)
	}
	return newRules(c, text, s.met)
}

// Run serves KMS providers, and follows the file if asked to, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	g := run.New(ctx)
	if s.c.Reload {
		g.Go("encryption configuration", func(ctx context.Context) error {
			return watchfile.Run(ctx, func() { s.reload(ctx) }, s.c.File)
		})
	}
	g.Go("encryption", func(ctx context.Context) error {
		for current := s.rules.Load(); ; {
			h := run.New(ctx)
			h.Go("providers", current.run)
			select {
			case next := <-s.next:
				// The old providers go on until the last request that began with them
				// may have ended.
				s.rules.Store(next)
				current = next
				run.Detach(ctx, "old encryption providers", func(ctx context.Context) {
					clock.Sleep(ctx, retire)
					h.Stop()
					h.Wait()
				})
			case <-ctx.Done():
				h.Stop()
				return h.Wait()
			}
		}
	})
	return g.Wait()
}

// retire is how long the providers of an outdated configuration stay reachable.
const retire = 10 * time.Second

// reload takes over the file if it says something else, and something good.
func (s *Store) reload(ctx context.Context) {
	r, err := s.read()
	if err == nil && r.hash == s.rules.Load().hash {
		return
	}
	if err == nil {
		err = r.prime(ctx)
	}
	s.met.reloaded(err)
	if err != nil {
		s.c.Log.Error("encryption configuration not taken over; the one before stays in force", "file", s.c.File, "err", err)
		return
	}
	s.c.Log.Info("encryption configuration taken over", "file", s.c.File)
	select {
	case s.next <- r:
	case <-ctx.Done():
	}
}

// prime readies the KMS providers, which a configuration must have before it is
// in force.
func (r *rules) prime(ctx context.Context) error {
	for _, k := range r.kms {
		if err := k.probe(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Healthy says what is wrong with the KMS providers there are, for health
// checks.
func (s *Store) Healthy(ctx context.Context) error { return s.rules.Load().healthy(ctx) }

// UsesKMS says whether there are KMS providers.
func (s *Store) UsesKMS() bool { return len(s.rules.Load().kms) > 0 }

// chain returns what a key's value is encrypted with, nil for nothing.
func (s *Store) chain(key string) (*chain, schema.GroupResource) {
	group, resource := s.c.Resource(key)
	gr := schema.GroupResource{Group: group, Resource: resource}
	return s.rules.Load().of(gr), gr
}

// seal encrypts a value for the store behind.
func (s *Store) seal(ctx context.Context, key string, value []byte) ([]byte, error) {
	c, gr := s.chain(key)
	if c == nil {
		return value, nil
	}
	began := clock.Now()
	out, err := c.encrypt(ctx, value, []byte(key))
	s.met.did("to_storage", c.of[0].prefix, gr, began, err)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("unable to transform key %q: %w", key, err)
	}
	return out, nil
}

// open decrypts a record of the store behind.
func (s *Store) open(ctx context.Context, r *storage.Record) (*storage.Record, error) {
	if r == nil || len(r.Value) == 0 {
		return r, nil
	}
	c, gr := s.chain(r.Key)
	if c == nil {
		return r, nil
	}
	began := clock.Now()
	plain, stale, err := c.decrypt(ctx, r.Value, []byte(r.Key))
	s.met.did("from_storage", c.known(r.Value), gr, began, err)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("unable to transform key %q: %w", r.Key, err)
	}
	return &storage.Record{Key: r.Key, Value: plain, Rev: r.Rev, Stale: stale}, nil
}

// known is the prefix by which a value is known, for metrics.
func (c *chain) known(data []byte) string {
	for _, t := range c.of {
		if t.prefix != "" && bytes.HasPrefix(data, []byte(t.prefix)) {
			return t.prefix
		}
	}
	return "identity"
}

// Rev implements storage.Store.
func (s *Store) Rev(ctx context.Context) (int64, error) { return s.store.Rev(ctx) }

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, atLeast int64) (*storage.Record, error) {
	r, err := s.store.Get(ctx, key, atLeast)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, r)
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix string, o storage.ListOptions) (*storage.Page, error) {
	p, err := s.store.List(ctx, prefix, o)
	if err != nil {
		return nil, err
	}
	out := *p
	out.Records = make([]*storage.Record, len(p.Records))
	for i, r := range p.Records {
		if out.Records[i], err = s.open(ctx, r); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// Create implements storage.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, ttl int64) (*storage.Record, error) {
	return s.write(ctx, key, value, func(ctx context.Context, sealed []byte) (*storage.Record, error) {
		return s.store.Create(ctx, key, sealed, ttl)
	})
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, key string, value []byte, expect, ttl int64) (*storage.Record, error) {
	return s.write(ctx, key, value, func(ctx context.Context, sealed []byte) (*storage.Record, error) {
		return s.store.Update(ctx, key, sealed, expect, ttl)
	})
}

// write stores value by do and gives back its record, as written.
func (s *Store) write(ctx context.Context, key string, value []byte, do func(context.Context, []byte) (*storage.Record, error)) (*storage.Record, error) {
	if c, _ := s.chain(key); c == nil {
		return do(ctx, value)
	}
	sealed, err := s.seal(ctx, key, value)
	if err != nil {
		return nil, err
	}
	// The record of the store behind is not the one that is handed out.
	forms := storage.FormsOf(ctx)
	r, err := do(storage.WithForms(ctx, nil), sealed)
	if err != nil {
		return nil, s.conflict(ctx, err)
	}
	out := &storage.Record{Key: r.Key, Value: value, Rev: r.Rev}
	if forms != nil {
		forms(out)
	}
	return out, nil
}

// conflict decrypts the record that a conflict tells of.
func (s *Store) conflict(ctx context.Context, err error) error {
	var c *storage.ConflictError
	if !errors.As(err, &c) {
		return err
	}
	cur, openErr := s.open(ctx, c.Current)
	if openErr != nil {
		return openErr
	}
	return &storage.ConflictError{Current: cur}
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, key string, expect int64) (*storage.Record, error) {
	r, err := s.store.Delete(ctx, key, expect)
	if err != nil {
		return nil, s.conflict(ctx, err)
	}
	return s.open(ctx, r)
}

// Compact implements storage.Compactor.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if c, ok := s.store.(storage.Compactor); ok {
		return c.Compact(ctx, rev)
	}
	return errors.ErrUnsupported
}

// Watch implements storage.Store.
func (s *Store) Watch(ctx context.Context, prefix string, o storage.WatchOptions) (storage.Watcher, error) {
	w, err := s.store.Watch(ctx, prefix, o)
	if err != nil {
		return nil, err
	}
	return &watcher{Watcher: w, s: s}, nil
}

// watcher decrypts what it passes on.
type watcher struct {
	storage.Watcher
	s *Store
}

// Next implements storage.Watcher.
func (w *watcher) Next(ctx context.Context) ([]storage.Event, error) {
	events, err := w.Watcher.Next(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]storage.Event, len(events))
	for i, e := range events {
		if e.Prev, err = w.s.open(ctx, e.Prev); err != nil {
			e.Prev = nil // it was replaced: nobody needs it enough to fail
		}
		if e.Record, err = w.s.open(ctx, e.Record); err != nil {
			if e.Type != storage.Deleted {
				return nil, err
			}
			e.Record = &storage.Record{Key: events[i].Record.Key, Rev: events[i].Record.Rev}
		}
		out[i] = e
	}
	return out, nil
}

// RequestProgress implements storage.ProgressRequester.
func (w *watcher) RequestProgress(ctx context.Context) {
	if p, ok := w.Watcher.(storage.ProgressRequester); ok {
		p.RequestProgress(ctx)
	}
}

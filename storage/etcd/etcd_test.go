package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/etcd"
	"github.com/sampan-dev/sampan/storage/storagetest"
)

// member starts a member in dir and returns it, ready, with its stop.
func member(t *testing.T, cfg etcd.Config) (*etcd.Server, func()) {
	t.Helper()
	cfg.Name = "test"
	cfg.Log = slog.New(slog.DiscardHandler)
	s, err := etcd.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	g.Go("etcd", s.Run)
	stop := func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		stop()
		t.Fatal(err)
	}
	return s, stop
}

func TestContractLocal(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s, stop := member(t, etcd.Config{DataDir: t.TempDir(), NoFsync: true})
		t.Cleanup(stop)
		return etcd.NewLocal(s)
	})
}

func TestContractRemote(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return remote(t) })
}

func remote(t *testing.T) *etcd.Store {
	dir := t.TempDir()
	url := "unix://" + filepath.Join(dir, "s")
	_, stop := member(t, etcd.Config{DataDir: dir, NoFsync: true, ListenClient: []string{url}})
	t.Cleanup(stop)
	r, err := etcd.NewRemote([]string{url}, etcd.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// What was acknowledged is there after a restart, revisions go on, and the
// member can be run again by the same Server.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s, stop := member(t, etcd.Config{DataDir: dir})
	st := etcd.NewLocal(s)
	r, err := st.Create(t.Context(), "/registry/a", []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := st.Get(t.Context(), "/registry/a", 0); err == nil {
		t.Fatal("a stopped member answered")
	}
	if err := st.Healthy(t.Context()); err == nil {
		t.Fatal("a stopped member is healthy")
	}
	begin := clock.Now()
	s, stop = member(t, etcd.Config{DataDir: dir})
	defer stop()
	t.Logf("restarted in %v", clock.Since(begin))
	st = etcd.NewLocal(s)
	got, err := st.Get(t.Context(), "/registry/a", 0)
	if err != nil || got.Rev != r.Rev || string(got.Value) != "1" {
		t.Fatalf("after the restart: %+v, %v", got, err)
	}
	if err := st.Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A second member in the same directory must fail, not take the process down.
func TestFailuresEndRunOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none")
	s, err := etcd.NewServer(etcd.Config{
		DataDir: t.TempDir(), ListenClient: []string{"unix://" + filepath.Join(file, "no", "such", "dir")},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Fatal("a member without its listener ran")
	}
	if _, err := etcd.NewServer(etcd.Config{}); err == nil {
		t.Fatal("a member without a directory was made")
	}
}

// Several API servers compact once an interval between them, one interval back.
func TestCompactorsAgree(t *testing.T) {
	s, stop := member(t, etcd.Config{DataDir: t.TempDir(), NoFsync: true})
	defer stop()
	st := etcd.NewLocal(s)
	above := map[string]*cacheAbove{"a": {Store: st}, "b": {Store: st}}
	a, b := &etcd.Compactor{Store: st, Above: above["a"]}, &etcd.Compactor{Store: st, Above: above["b"]}
	interval := func() {
		for _, c := range []*etcd.Compactor{a, b} {
			if err := c.Once(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	old, err := st.Create(t.Context(), "/registry/old", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	readable := func(rev int64) bool {
		_, err := st.List(t.Context(), "/registry/", storage.ListOptions{Rev: rev, Match: storage.AtExact})
		if err != nil && !errors.Is(err, storage.ErrCompacted) {
			t.Fatal(err)
		}
		return err == nil
	}
	interval()
	if !readable(old.Rev) {
		t.Fatal("compacted before an interval passed")
	}
	recent, err := st.Create(t.Context(), "/registry/recent", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	interval()
	if readable(old.Rev) {
		t.Fatal("not compacted after an interval")
	}
	if !readable(recent.Rev) {
		t.Fatal("compacted what is not an interval old")
	}
	// Whoever compacts, every server's cache forgets the same.
	for name, c := range above {
		if c.to < old.Rev || c.to >= recent.Rev {
			t.Errorf("server %s keeps history from %d on; want from %d to below %d", name, c.to, old.Rev, recent.Rev)
		}
	}
}

// cacheAbove stands for a server's cache.
type cacheAbove struct {
	*etcd.Store
	to int64
}

func (c *cacheAbove) Compact(ctx context.Context, rev int64) error {
	c.to = rev
	return c.Store.Compact(ctx, rev)
}

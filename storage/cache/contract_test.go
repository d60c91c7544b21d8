package cache_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
	"github.com/sampan-dev/sampan/storage/etcd"
	"github.com/sampan-dev/sampan/storage/mem"
	"github.com/sampan-dev/sampan/storage/storagetest"
)

// start runs a cache of s until the test ends, with everything registered.
func start(t testing.TB, s storage.Store, cfg cache.Config, prefixes ...string) *cache.Cache {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c, err := cache.New(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range prefixes {
		c.Register(p, nil)
	}
	g := run.New(context.Background())
	g.Go("cache", c.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.Synced(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func member(t testing.TB) *etcd.Store {
	t.Helper()
	s, err := etcd.NewServer(etcd.Config{Name: "test", DataDir: t.TempDir(), NoFsync: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	g.Go("etcd", s.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return etcd.NewLocal(s)
}

func TestContractOverMem(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		return start(t, mem.New(), cache.Config{}, storagetest.Prefix)
	})
}

func TestContractOverEtcd(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		return start(t, member(t), cache.Config{}, storagetest.Prefix)
	})
}

// Resources nobody registered pass through.
func TestContractUnregistered(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return start(t, mem.New(), cache.Config{}) })
}

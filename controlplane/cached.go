package controlplane

import (
	"context"

	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
)

// cached puts a cache before the store and waits until it is warm.
func cached(ctx context.Context, g *run.Group, store storage.Store, registry *rest.Registry, deps Deps) (storage.Store, error) {
	c, err := cache.New(store, cache.Config{Prefix: "/registry/", Resource: named(registry), Metrics: deps.Metrics, Log: deps.Log})
	if err != nil {
		return nil, err
	}
	for _, s := range registry.All() {
		if s.Version == nil && !s.Info.Virtual {
			c.Register(s.Prefix(), s.Indexers())
		}
	}
	g.Go("cache", c.Run)
	return c, c.Synced(ctx)
}

package controlplane

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/audit"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
)

// Guard is how the API server is kept from harm, and what it puts on record.
type Guard struct {
	// Unfair bounds reads and writes apart instead of sharing the sum of both by
	// priority and fairness.
	Unfair bool
	// MaxReads and MaxWrites are the requests served at once; 400 and 200 when 0.
	MaxReads, MaxWrites int
	// Timeout bounds a request; 60 s when 0.
	Timeout time.Duration
	// Audit says what is put on record; nothing without a policy.
	Audit audit.Config
}

// guarded makes an API server with its guards.
func (c *Config) guarded(hooks []request.Hook, registry *rest.Registry, store storage.Store, d apiserver.Deps) (*apiserver.Server, error) {
	g := &c.Guard
	s := c.server(hooks)
	s.Fairness, s.MaxReads, s.MaxWrites, s.Timeout = !g.Unfair, g.MaxReads, g.MaxWrites, g.Timeout
	d.Size = sizes(registry, store)
	if g.Audit.Webhook.ConfigFile != "" {
		var err error
		if g.Audit.Webhook.Client, g.Audit.Webhook.URL, err = client.Hook(g.Audit.Webhook.ConfigFile); err != nil {
			return nil, fmt.Errorf("--audit-webhook-config-file: %w", err)
		}
	}
	var err error
	if d.Audit, err = audit.New(g.Audit, audit.Deps{Log: d.Log, Metrics: d.Metrics}); err != nil {
		return nil, err
	}
	return apiserver.New(s, d)
}

// sizes says how much is stored of a resource, as far as it is in memory.
func sizes(registry *rest.Registry, store storage.Store) func(group, resource string) (int, int64, bool) {
	c, ok := store.(*cache.Cache)
	if !ok {
		return nil
	}
	return func(group, resource string) (int, int64, bool) {
		s, ok := registry.Stored(schema.GroupResource{Group: group, Resource: resource})
		if !ok {
			return 0, 0, false
		}
		return c.Size(s.Prefix())
	}
}

// named says, for metrics, which resource is stored below a prefix.
func named(registry *rest.Registry) func(prefix string) (group, resource string) {
	return func(prefix string) (string, string) {
		for _, s := range registry.All() {
			if s.Version == nil && s.Prefix() == prefix {
				return s.Info.Group, s.Info.Plural
			}
		}
		// A custom resource lives below its group.
		group, resource, _ := strings.Cut(strings.Trim(strings.TrimPrefix(prefix, "/registry/"), "/"), "/")
		return group, resource
	}
}

package controlplane

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/audit"
	"github.com/sampan-dev/sampan/apiserver/health"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
	"github.com/sampan-dev/sampan/storage/encrypt"
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
	// TLS limits how clients may connect.
	TLS TLS
	// Goaway is the chance with which a client is asked to connect anew, to
	// another server perhaps.
	Goaway float64
	// CORS are patterns of origins whose pages may ask; StrictTransport are
	// directives for browsers.
	CORS, StrictTransport []string
	// Streams is how many requests a client may have on one connection; 1000 when 0.
	Streams int
	// ShutdownDelay keeps serving, unready, after the end was asked for.
	ShutdownDelay time.Duration
	// Audit says what is put on record; nothing without a policy.
	Audit audit.Config
	// EncryptionConfig names an EncryptionConfiguration; "" stores everything as
	// it is. EncryptionReload takes over its changes.
	EncryptionConfig string
	EncryptionReload bool

	crypt *encrypt.Store
}

// encrypted puts what encrypts before the store, if that is asked for. What
// stands above sees everything below storage.Root.
func (c *ControlPlane) encrypted(g *run.Group, registry *rest.Registry) (storage.Store, error) {
	if c.deps.Metrics != nil {
		c.deps.Metrics.MustRegister(newStorageSize(c.store.Size, c.deps.Log))
	}
	if c.cfg.Guard.EncryptionConfig == "" {
		return storage.Under(c.store, c.cfg.EtcdPrefix), nil
	}
	// Values are bound to the keys they really have.
	find, prefix := stored(registry), "/"+strings.Trim(cmp.Or(c.cfg.EtcdPrefix, storage.Root), "/")+"/"
	s, err := encrypt.New(c.store, encrypt.Config{
		File: c.cfg.Guard.EncryptionConfig, Reload: c.cfg.Guard.EncryptionReload,
		Resource: func(key string) (string, string) { return find(storage.Root + strings.TrimPrefix(key, prefix)) },
		Metrics:  c.deps.Metrics, Log: c.deps.Log,
	})
	if err != nil {
		return nil, err
	}
	c.cfg.Guard.crypt = s
	g.Go("encryption", s.Run)
	return storage.Under(s, c.cfg.EtcdPrefix), nil
}

// healthy is the health of key management services, as upstream names it.
func (g *Guard) healthy() []health.Check {
	if g.crypt == nil || !g.crypt.UsesKMS() && !g.EncryptionReload {
		return nil
	}
	name := "kms-provider-0"
	if g.EncryptionReload {
		name = "kms-providers"
	}
	return []health.Check{{Name: name, Fn: func(r *http.Request) error { return g.crypt.Healthy(r.Context()) }}}
}

// stored says which resource is stored at a key.
func stored(registry *rest.Registry) func(key string) (group, resource string) {
	type place struct{ prefix, group, resource string }
	var places []place
	for _, s := range registry.All() {
		if s.Version == nil && !s.Info.Virtual {
			places = append(places, place{s.Prefix(), s.Info.Group, s.Info.Plural})
		}
	}
	slices.SortFunc(places, func(a, b place) int { return strings.Compare(a.prefix, b.prefix) })
	return func(key string) (string, string) {
		i, _ := slices.BinarySearchFunc(places, key, func(p place, k string) int { return strings.Compare(p.prefix, k) })
		if i > 0 && strings.HasPrefix(key, places[i-1].prefix) {
			return places[i-1].group, places[i-1].resource
		}
		return below(key)
	}
}

// below reads a key of a custom resource, which is stored below its group.
func below(key string) (group, resource string) {
	parts := strings.SplitN(strings.TrimPrefix(key, "/registry/"), "/", 3)
	if len(parts) < 2 {
		return "", parts[0]
	}
	return parts[0], parts[1]
}

// guarded makes an API server with its guards.
func (c *Config) guarded(hooks []request.Hook, registry *rest.Registry, store storage.Store, d apiserver.Deps) (*apiserver.Server, error) {
	g := &c.Guard
	s := c.server(hooks)
	s.Fairness, s.MaxReads, s.MaxWrites, s.Timeout = !g.Unfair, g.MaxReads, g.MaxWrites, g.Timeout
	s.Goaway, s.CORS, s.StrictTransport, s.Streams, s.ShutdownDelay = g.Goaway, g.CORS, g.StrictTransport, g.Streams, g.ShutdownDelay
	if err := g.TLS.apply(&s); err != nil {
		return nil, err
	}
	d.Size, d.Healthy = sizes(registry, store), g.healthy()
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
		return below(prefix)
	}
}

package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/aggregate"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/authn"
	"github.com/sampan-dev/sampan/apiserver/authz"
	"github.com/sampan-dev/sampan/apiserver/crd"
	"github.com/sampan-dev/sampan/apiserver/ledger"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/stream"
	"github.com/sampan-dev/sampan/apiserver/virtual"
	"github.com/sampan-dev/sampan/storage"
)

// gate is what judges requests.
type gate struct {
	back     request.Backend
	rbac     *authz.RBAC
	node     *authz.Node
	authz    *authz.Live
	authn    *authn.Union
	issuers  *authn.Issuers // nil when there are none
	accounts *authn.Accounts
	ledger   *ledger.Ledger
	custom   *crd.Server
	judges   *judges

	aggregator *aggregate.Aggregator
}

// newServer makes the API server over a store. The parts that judge requests
// read through the very engine they guard, so it comes first and is told of
// them after.
func newServer(ctx context.Context, cfg *Config, store storage.Store, registry *rest.Registry, deps Deps, checks []virtual.Check, hooks []request.Hook) (*apiserver.Server, *gate, error) {
	fields := apply.New(openapi.NewMerger())
	engine := rest.New(rest.Deps{Store: store, Registry: registry, Fields: fields, Log: deps.Log})
	g := &gate{back: engine.Backend()}
	g.custom = customResources(g.back, registry, fields, store, deps)
	if err := errors.Join(g.authorizers(cfg, deps), g.authenticators(cfg, deps)); err != nil {
		return nil, nil, err
	}
	if err := g.newJudges(cfg, fields, registry, deps); err != nil {
		return nil, nil, err
	}
	plugins, warnings, err := g.choose(cfg, registry)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range warnings {
		deps.Log.Warn(w)
	}
	if g.ledger, err = ledger.New(ledger.Config{CIDRs: cfg.ServiceCIDRs, FirstPort: cfg.Offer.FirstPort, LastPort: cfg.Offer.LastPort}, store, g.back); err != nil {
		return nil, nil, err
	}
	streams := stream.New(stream.Config{
		// As upstream without --kubelet-certificate-authority: kubelets' serving
		// certificates are their own.
		KubeletTLS:   &tls.Config{Certificates: []tls.Certificate{cfg.Kubelet}, RootCAs: cfg.Offer.KubeletCAs, InsecureSkipVerify: cfg.Offer.KubeletCAs == nil, MinVersion: tls.VersionTLS12},
		AddressTypes: cfg.Offer.KubeletAddresses,
		Streams:      ctx, MaxTokenLife: cfg.Access.MaxTokenLife, ExactTokens: cfg.Access.ExactTokens,
	}, g.back, g.accounts)
	engine.Admission = append(plugins, authz.NewGuard(g.rbac, g.authz))
	engine.Begin = func() rest.Transaction { return g.ledger.Begin() }
	engine.Authorizer, engine.Connectors, engine.Posters = g.authz, streams.Connectors(), streams.Posters()
	if g.aggregator, err = aggregator(cfg, g.back, registry, deps); err != nil {
		return nil, nil, err
	}
	engine.Virtuals = virtuals(virtual.Deps{Tokens: g.authn, Authorizer: g.authz, Components: checks}, streams)
	s, err := cfg.guarded(hooks, registry, store, apiserver.Deps{
		Engine: engine, Authn: []request.Authenticator{g.authn}, Impersonate: authn.Impersonate, OpenAPI: g.aggregator.OpenAPI(openapi.New(registry.Kinds)),
		Aggregated: g.aggregator.Serve, Discovery: g.aggregator.Discovery,
		Paths: map[string]http.Handler{
			"/openid/v1/jwks": g.accounts.JWKS(), "/.well-known/openid-configuration": g.accounts.Discovery(),
			"/openid/v1/jwks/": g.accounts.JWKS(), "/.well-known/openid-configuration/": g.accounts.Discovery(),
		},
		Log: deps.Log, Metrics: deps.Metrics,
	})
	return s, g, err
}

// server is how the API is served.
func (c *Config) server(hooks []request.Hook) apiserver.Config {
	return apiserver.Config{
		Listen:      net.JoinHostPort(c.BindAddress, strconv.Itoa(c.Port)),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Serving() },
		ClientCAs:   c.acceptable, Advertise: c.Advertise.AsSlice(), AdvertisePort: c.Port,
		ServiceIP: c.ServiceCIDRs[0].Masked().Addr().Next().AsSlice(), Anonymous: c.Anonymous, Profiling: true, PostStart: hooks,
	}
}

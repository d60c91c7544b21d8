package controlplane

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"

	"github.com/sampan-dev/sampan/apiserver/admission"
	"github.com/sampan-dev/sampan/apiserver/authn"
	"github.com/sampan-dev/sampan/apiserver/authz"
	"github.com/sampan-dev/sampan/apiserver/ledger"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/stream"
	"github.com/sampan-dev/sampan/apiserver/virtual"
	"github.com/sampan-dev/sampan/resource/all"
	"github.com/sampan-dev/sampan/storage"
)

// gate is the API server's parts before they are put behind HTTP.
type gate struct {
	engine   *rest.Engine
	back     rest.Backend
	rbac     *authz.RBAC
	node     *authz.Node
	authz    authz.Chain
	authn    *authn.Union
	accounts *authn.Accounts
	ledger   *ledger.Ledger
}

// newGate builds the parts over a store. The parts that judge requests read
// through the very engine they guard, so the engine comes first and is told of
// them after.
func newGate(ctx context.Context, cfg *Config, store storage.Store, checks []virtual.Check, warn func(string)) (*gate, error) {
	g := &gate{engine: rest.New(rest.Deps{Store: store, Registry: rest.NewRegistry(all.Kinds())})}
	g.back = g.engine.Backend()
	g.rbac, g.node = authz.NewRBAC(g.back), authz.NewNode(g.back)
	var err error
	if g.authz, err = authz.NewChain(cfg.AuthorizationModes, g.rbac, g.node); err != nil {
		return nil, err
	}
	if err := g.authenticators(cfg); err != nil {
		return nil, err
	}
	plugins, warnings, err := admission.Choose(admission.Deps{Back: g.back, Authorizer: g.authz}, cfg.EnableAdmission, cfg.DisableAdmission)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		warn(w)
	}
	if g.ledger, err = ledger.New(ledger.Config{CIDRs: cfg.ServiceCIDRs}, store, g.back); err != nil {
		return nil, err
	}
	streams := stream.New(stream.Config{
		KubeletTLS: &tls.Config{Certificates: []tls.Certificate{cfg.Kubelet}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, // as upstream without --kubelet-certificate-authority
		Streams:    ctx,
	}, g.back, g.accounts)
	e := g.engine
	e.Admission = append(plugins, authz.NewGuard(g.rbac, g.authz))
	e.Begin = func() rest.Transaction { return g.ledger.Begin() }
	e.Authorizer, e.Connectors, e.Posters = g.authz, streams.Connectors(), streams.Posters()
	e.Virtuals = virtuals(virtual.Deps{Tokens: g.authn, Authorizer: g.authz, Components: checks}, streams)
	return g, nil
}

func (g *gate) authenticators(cfg *Config) error {
	var err error
	issuer := authn.DefaultIssuer
	if cfg.ClusterDomain != "" {
		issuer = "https://kubernetes.default.svc." + cfg.ClusterDomain
	}
	if g.accounts, err = authn.NewAccounts(authn.AccountsConfig{Issuers: []string{issuer}, Key: cfg.AccountKey}, g.back); err != nil {
		return err
	}
	tokens := []authn.TokenAuthenticator{}
	if cfg.TokenFile != "" {
		f, err := os.Open(cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("--token-auth-file: %w", err)
		}
		defer f.Close()
		static, err := authn.ReadStatic(f)
		if err != nil {
			return fmt.Errorf("--token-auth-file: %w", err)
		}
		tokens = append(tokens, static)
	}
	tokens = append(tokens, g.accounts, &authn.Bootstrap{Back: g.back})
	c := authn.Config{ClientCA: authn.NewPool(cfg.ClientCA.Cert), Tokens: tokens, Anonymous: cfg.Anonymous}
	if cfg.FrontProxyCA != nil {
		c.RequestHeader = &authn.RequestHeader{
			CA: authn.NewPool(cfg.FrontProxyCA.Cert), AllowedNames: []string{"front-proxy-client"},
			UserHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
			GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"},
		}
	}
	g.authn = authn.New(c)
	return nil
}

package controlplane

import (
	"context"
	"crypto/x509"

	"github.com/sampan-dev/sampan/apiserver/authn"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// acceptable are the authorities named to clients when they are asked for a
// certificate: a client shows none that another has signed.
func (c *Config) acceptable() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, p := range []*authn.Pool{c.Access.clients, c.Access.proxies} {
		if p == nil {
			continue
		}
		for _, cert := range p.Certs() {
			pool.AddCert(cert)
		}
	}
	return pool
}

// followAuthorities takes over the certificates of the files named by flags when
// these change, and tells what is to be published.
func (c *ControlPlane) followAuthorities(g *run.Group, tell func(clients, proxies []byte)) {
	a := &c.cfg.Access
	changed := func() {
		var proxies []byte
		if a.proxies != nil {
			proxies = pki.EncodeCerts(a.proxies.Certs()...)
		}
		tell(pki.EncodeCerts(a.clients.Certs()...), proxies)
	}
	for _, f := range []struct {
		file string
		pool *authn.Pool
	}{{a.ClientCAFile, a.clients}, {a.FrontProxyCAFile, a.proxies}} {
		if f.file == "" || f.pool == nil {
			continue
		}
		g.Go("authorities", func(ctx context.Context) error { return f.pool.Follow(ctx, f.file, nil, changed, c.deps.Log) })
	}
}

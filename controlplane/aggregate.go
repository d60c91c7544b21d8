package controlplane

import (
	"context"
	"net"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/aggregate"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
)

// aggregator makes other API servers part of this one.
func aggregator(cfg *Config, back request.Backend, registry *rest.Registry, deps Deps) (*aggregate.Aggregator, error) {
	c := aggregate.Config{
		ProxyClient: cfg.ProxyClient, EndpointRouting: cfg.EndpointRouting, AllowRedirects: cfg.AllowRedirects,
		Self: net.JoinHostPort(cfg.Advertise.String(), strconv.Itoa(cfg.Port)), Trust: trust(cfg),
	}
	builtIn := versions(all.Kinds())
	return aggregate.New(c, aggregate.Deps{
		Back: back, Log: deps.Log, Metrics: deps.Metrics,
		Served: func() ([]aggregate.Served, <-chan struct{}) {
			changed := registry.Changed() // before the kinds, so that no change is missed
			var out []aggregate.Served
			for gv := range versions(registry.Kinds()) {
				out = append(out, aggregate.Served{GroupVersion: gv, Custom: !builtIn[gv]})
			}
			return out, changed
		},
	})
}

// trust is whom other servers are told to believe.
func trust(cfg *Config) *aggregate.Trust {
	t := &aggregate.Trust{ClientCA: pki.EncodeCerts(cfg.clientCAs()...)}
	if h := cfg.requestHeader(); h != nil {
		t.RequestHeaderCA = cfg.frontProxyPEM()
		t.AllowedNames, t.UserHeaders, t.UIDHeaders = h.AllowedNames, h.UserHeaders, h.UIDHeaders
		t.GroupHeaders, t.Extra = h.GroupHeaders, h.ExtraPrefixes
	}
	return t
}

// versions are the groups and versions of kinds, the retired ones left out.
func versions(kinds []resource.Kind) map[schema.GroupVersion]bool {
	out := map[schema.GroupVersion]bool{}
	for _, k := range kinds {
		i := k.Info()
		if !i.Hidden {
			out[i.GroupVersion()] = true
		}
		for n := range i.Also {
			if v := &i.Also[n]; !v.Retired && !v.Apart {
				out[schema.GroupVersion{Group: v.Group, Version: v.Version}] = true
			}
		}
	}
	return out
}

// registration is the work that makes the built-in groups known as APIServices.
func (c *ControlPlane) registration() request.Hook {
	return request.Hook{Name: "kube-apiserver-autoregistration", Fn: func(ctx context.Context, b request.Backend) error {
		return c.gate.aggregator.Register(ctx, b)
	}}
}

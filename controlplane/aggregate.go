package controlplane

import (
	"context"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/aggregate"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
)

// aggregator makes other API servers part of this one.
func aggregator(cfg *Config, back request.Backend, registry *rest.Registry, deps Deps) (*aggregate.Aggregator, error) {
	c := aggregate.Config{
		ProxyClient: cfg.ProxyClient, EndpointRouting: cfg.EndpointRouting, AllowRedirects: cfg.AllowRedirects,
		Self: net.JoinHostPort(cfg.Advertise.String(), strconv.Itoa(cfg.Port)),
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

// publishTrust is the work that tells other servers whom to believe.
func (c *ControlPlane) publishTrust() request.Hook {
	return request.Hook{Name: "start-cluster-authentication-info-controller", Fn: inSystem(trust(&c.cfg).Publish)}
}

// inSystem makes the namespace kube-system before work that writes there.
func inSystem(work func(context.Context, request.Backend) error) func(context.Context, request.Backend) error {
	return func(ctx context.Context, b request.Backend) error {
		namespaces := schema.GroupResource{Resource: "namespaces"}
		if _, err := b.Get(ctx, namespaces, "", metav1.NamespaceSystem); apierrors.IsNotFound(err) {
			_, err = b.Create(ctx, namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}, nil)
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		return work(ctx, b)
	}
}

// keepTrust puts right what somebody changes there, until ctx ends.
func (c *ControlPlane) keepTrust(ctx context.Context) error {
	t, wrong := trust(&c.cfg), make(chan struct{}, 1)
	mirrors := client.NewMirrors(c.Client(request.LoopbackUser, request.Masters))
	m := client.MirrorOf[corev1.ConfigMap](mirrors, client.MirrorOptions{Namespace: metav1.NamespaceSystem, Fields: "metadata.name=" + aggregate.TrustMap})
	m.OnChange(func(_, now *corev1.ConfigMap) {
		if now != nil && t.Right(now) {
			return
		}
		select {
		case wrong <- struct{}{}:
		default:
		}
	})
	g := run.New(ctx)
	c.followAuthorities(g, func(clients, proxies []byte) {
		t.Renew(clients, proxies)
		select {
		case wrong <- struct{}{}:
		default:
		}
	})
	g.Go("trust mirror", mirrors.Run)
	g.Go("trust repair", func(ctx context.Context) error { return t.Repair(ctx, c.gate.back, c.deps.Log, wrong) })
	return g.Wait()
}

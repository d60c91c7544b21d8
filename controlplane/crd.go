package controlplane

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/crd"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
)

// customResources serves the kinds that users define, besides those there are.
func customResources(back request.Backend, registry *rest.Registry, fields *apply.Fields, store storage.Store, deps Deps) *crd.Server {
	builtin := registry.Kinds()
	own := map[schema.GroupResource]bool{}
	for _, k := range builtin {
		own[k.Info().GroupResource()] = true
	}
	d := crd.Deps{
		Back: back, Log: deps.Log, Metrics: deps.Metrics, Schemas: openapi.Definitions, Forget: fields.Forget,
		Dialer:  func(ctx context.Context, namespace, name string, port int32) (string, error) { return serviceAddress(ctx, back, namespace, name, port) },
		Serve:   func(kinds []resource.Kind) { registry.Set(append(builtin[:len(builtin):len(builtin)], kinds...)) },
		Builtin: func(gr schema.GroupResource) bool { return own[gr] },
	}
	if c, ok := store.(*cache.Cache); ok {
		d.Keep = func(prefix string) { c.Register("/registry/"+prefix+"/", nil) }
		d.Drop = func(prefix string) { c.Unregister("/registry/" + prefix + "/") }
	}
	return crd.New(d)
}

// serviceAddress is where a service of the cluster is reached.
func serviceAddress(ctx context.Context, back request.Backend, namespace, name string, port int32) (string, error) {
	obj, err := back.Get(ctx, schema.GroupResource{Resource: "services"}, namespace, name)
	if err != nil {
		return "", err
	}
	svc := obj.(*corev1.Service)
	at := strconv.Itoa(int(port))
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return net.JoinHostPort(svc.Spec.ExternalName, at), nil
	case svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone:
		return "", fmt.Errorf("service %s/%s has no cluster address", namespace, name)
	}
	for _, p := range svc.Spec.Ports {
		if p.Port == port {
			return net.JoinHostPort(svc.Spec.ClusterIP, at), nil
		}
	}
	return "", fmt.Errorf("service %s/%s: no port %d", namespace, name, port)
}

package controlplane

import (
	"context"
	"net"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/crd"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/webhook"
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
		Dialer: func(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
			return webhook.Dial(ctx, back, namespace, name, port)
		},
		Serve:   func(kinds []resource.Kind) { registry.Set(append(builtin[:len(builtin):len(builtin)], kinds...)) },
		Builtin: func(gr schema.GroupResource) bool { return own[gr] },
	}
	if c, ok := store.(*cache.Cache); ok {
		d.Keep = func(prefix string) { c.Register("/registry/"+prefix+"/", nil) }
		d.Drop = func(prefix string) { c.Unregister("/registry/" + prefix + "/") }
	}
	return crd.New(d)
}

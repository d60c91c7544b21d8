package controlplane

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/httpx"
)

// everywhere is the client in process for what is served here, and one through
// the server's own handler for what aggregated servers have.
type everywhere struct {
	client.Interface
	far   client.Interface
	isFar func(schema.GroupVersion) bool
}

// everywhere returns near, able to reach what aggregated servers have, too.
func (c *ControlPlane) everywhere(near client.Interface, u *request.User, agent string) client.Interface {
	far := httpx.InProcess{Handler: c.server, Context: func(ctx context.Context) context.Context { return request.WithUser(ctx, u) }}
	return &everywhere{near, client.Over(far, agent), c.gate.aggregator.Has}
}

func (e *everywhere) to(r schema.GroupVersionResource) client.Interface {
	if e.isFar(r.GroupVersion()) {
		return e.far
	}
	return e.Interface
}

// Get implements client.Interface.
func (e *everywhere) Get(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, o *metav1.GetOptions) (api.Object, error) {
	return e.to(r).Get(ctx, r, namespace, name, sub, o)
}

// List implements client.Interface.
func (e *everywhere) List(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (*api.Listed, error) {
	return e.to(r).List(ctx, r, namespace, o)
}

// Watch implements client.Interface.
func (e *everywhere) Watch(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (api.Events, error) {
	return e.to(r).Watch(ctx, r, namespace, o)
}

// Create implements client.Interface.
func (e *everywhere) Create(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, obj api.Object, o *metav1.CreateOptions) (api.Object, error) {
	return e.to(r).Create(ctx, r, namespace, name, sub, obj, o)
}

// Update implements client.Interface.
func (e *everywhere) Update(ctx context.Context, r schema.GroupVersionResource, namespace, sub string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error) {
	return e.to(r).Update(ctx, r, namespace, sub, obj, o)
}

// Patch implements client.Interface.
func (e *everywhere) Patch(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error) {
	return e.to(r).Patch(ctx, r, namespace, name, sub, t, data, o)
}

// Delete implements client.Interface.
func (e *everywhere) Delete(ctx context.Context, r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error {
	return e.to(r).Delete(ctx, r, namespace, name, o)
}

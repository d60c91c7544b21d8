package cli

import (
	"context"
	"errors"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// pending is a connection that is still to come. Until then every call fails, as
// if the API server were away, which a kubelet can live with: it runs its static
// pods, among which may be the API server that is to sign its certificate.
type pending struct {
	c atomic.Pointer[client.Interface]
}

var errPending = errors.New("the client certificate has been asked for and is not here yet")

func (p *pending) come(c client.Interface) { p.c.Store(&c) }

// use calls fn with the connection, if it has come.
func use[T any](p *pending, fn func(client.Interface) (T, error)) (T, error) {
	if c := p.c.Load(); c != nil {
		return fn(*c)
	}
	var none T
	return none, errPending
}

// Get implements client.Interface.
func (p *pending) Get(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, o *metav1.GetOptions) (api.Object, error) {
	return use(p, func(c client.Interface) (api.Object, error) { return c.Get(ctx, r, namespace, name, sub, o) })
}

// List implements client.Interface.
func (p *pending) List(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (*api.Listed, error) {
	return use(p, func(c client.Interface) (*api.Listed, error) { return c.List(ctx, r, namespace, o) })
}

// Watch implements client.Interface.
func (p *pending) Watch(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (api.Events, error) {
	return use(p, func(c client.Interface) (api.Events, error) { return c.Watch(ctx, r, namespace, o) })
}

// Create implements client.Interface.
func (p *pending) Create(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, obj api.Object, o *metav1.CreateOptions) (api.Object, error) {
	return use(p, func(c client.Interface) (api.Object, error) { return c.Create(ctx, r, namespace, name, sub, obj, o) })
}

// Update implements client.Interface.
func (p *pending) Update(ctx context.Context, r schema.GroupVersionResource, namespace, sub string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error) {
	return use(p, func(c client.Interface) (api.Object, error) { return c.Update(ctx, r, namespace, sub, obj, o) })
}

// Patch implements client.Interface.
func (p *pending) Patch(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error) {
	return use(p, func(c client.Interface) (api.Object, error) { return c.Patch(ctx, r, namespace, name, sub, t, data, o) })
}

// Delete implements client.Interface.
func (p *pending) Delete(ctx context.Context, r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error {
	_, err := use(p, func(c client.Interface) (struct{}, error) { return struct{}{}, c.Delete(ctx, r, namespace, name, o) })
	return err
}

// Raw implements client.Interface.
func (p *pending) Raw(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	return use(p, func(c client.Interface) ([]byte, error) { return c.Raw(ctx, method, path, body) })
}

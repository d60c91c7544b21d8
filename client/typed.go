package client

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
)

// Resource returns the URL name of T, an API struct type such as corev1.Pod.
func Resource[T any]() schema.GroupVersionResource {
	plural, _ := meta.UnsafeGuessKindToResource(api.KindFor[T]())
	return plural
}

// Typed is access to one kind. Make one with Of.
type Typed[T any] struct {
	c         Interface
	r         schema.GroupVersionResource
	namespace string
}

// Of returns typed access to the objects of T in namespace; "" is all
// namespaces for reading, and none for cluster-scoped kinds.
func Of[T any](c Interface, namespace string) Typed[T] {
	return Typed[T]{c: c, r: Resource[T](), namespace: namespace}
}

// result turns an untyped answer into a typed one.
func result[T any](obj api.Object, err error) (*T, error) {
	if err != nil || obj == nil { // a subresource may answer without an object
		return nil, err
	}
	out, ok := any(obj).(*T)
	if !ok {
		return nil, fmt.Errorf("unexpected answer of type %T", obj)
	}
	return out, nil
}

// object turns *T into the untyped interface.
func object[T any](obj *T) api.Object { return any(obj).(api.Object) }

// Get returns the named object, read consistently.
func (t Typed[T]) Get(ctx context.Context, name string) (*T, error) {
	return result[T](t.c.Get(ctx, t.r, t.namespace, name, "", nil))
}

// List returns the objects that o selects.
func (t Typed[T]) List(ctx context.Context, o *metav1.ListOptions) ([]*T, error) {
	l, err := t.c.List(ctx, t.r, t.namespace, o)
	if err != nil {
		return nil, err
	}
	out := make([]*T, len(l.Items))
	for i, obj := range l.Items {
		out[i] = any(obj).(*T)
	}
	return out, nil
}

// Create makes obj, in its own namespace if it names one.
func (t Typed[T]) Create(ctx context.Context, obj *T) (*T, error) {
	o := object(obj)
	return result[T](t.c.Create(ctx, t.r, t.in(o), o.GetName(), "", o, nil))
}

// Update replaces obj.
func (t Typed[T]) Update(ctx context.Context, obj *T) (*T, error) {
	o := object(obj)
	return result[T](t.c.Update(ctx, t.r, t.in(o), "", o, nil))
}

// UpdateStatus replaces obj's status.
func (t Typed[T]) UpdateStatus(ctx context.Context, obj *T) (*T, error) {
	o := object(obj)
	return result[T](t.c.Update(ctx, t.r, t.in(o), "status", o, nil))
}

// Patch changes the named object, or with sub its subresource.
func (t Typed[T]) Patch(ctx context.Context, name, sub string, pt types.PatchType, data []byte) (*T, error) {
	return result[T](t.c.Patch(ctx, t.r, t.namespace, name, sub, pt, data, nil))
}

// Delete removes the named object.
func (t Typed[T]) Delete(ctx context.Context, name string, o *metav1.DeleteOptions) error {
	return t.c.Delete(ctx, t.r, t.namespace, name, o)
}

// Post creates obj at the subresource sub of name, such as a Pod's binding.
func Post[Out any, T any](ctx context.Context, t Typed[T], name, sub string, obj api.Object) (*Out, error) {
	return result[Out](t.c.Create(ctx, t.r, t.namespace, name, sub, obj, nil))
}

func (t Typed[T]) in(o api.Object) string {
	if ns := o.GetNamespace(); ns != "" {
		return ns
	}
	return t.namespace
}

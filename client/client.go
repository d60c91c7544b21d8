// Package client is how every actor sees the API: the same interface in process
// and over HTTPS.
//
// Job: Interface and its two transports (HTTP here; the one in process comes
// from the API server), typed access by generics (Of), the Mirror (list+watch
// kept in memory and shared), leader election, events.
//
// Not its job: what is done with what is seen.
//
// Invariants: objects that come from an Interface or a Mirror are shared and
// must not be modified: DeepCopy first.
package client

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
)

// Interface is a connection to an API server with one identity. Errors are
// *apierrors.StatusError where the server answered. Options may be nil.
type Interface interface {
	Get(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, o *metav1.GetOptions) (api.Object, error)
	List(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (*api.Listed, error)
	Watch(ctx context.Context, r schema.GroupVersionResource, namespace string, o *metav1.ListOptions) (api.Events, error)
	// Create makes obj, or with sub posts it to the subresource of name.
	Create(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, obj api.Object, o *metav1.CreateOptions) (api.Object, error)
	Update(ctx context.Context, r schema.GroupVersionResource, namespace, sub string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error)
	Patch(ctx context.Context, r schema.GroupVersionResource, namespace, name, sub string, t types.PatchType, data []byte, o *metav1.PatchOptions) (api.Object, error)
	Delete(ctx context.Context, r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error
	// Raw sends a request to any path, such as /version or /apis, and returns the body.
	Raw(ctx context.Context, method, path string, body []byte) ([]byte, error)
}

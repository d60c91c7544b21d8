package request

import (
	"context"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
)

// Connector serves a connect subresource (pods/log, pods/exec, nodes/proxy …).
// The request was authorized and admitted; obj is the parent, shared and
// immutable. It answers by itself, errors included (WriteError).
type Connector interface {
	Connect(w http.ResponseWriter, r *http.Request, i *Info, obj api.Object)
}

// Poster serves a subresource whose POST takes an object of its own and answers
// with one: serviceaccounts/token. body has the kind that the definition's
// Connect names; parent is shared and immutable. In process it is called the
// same way.
type Poster interface {
	Post(ctx context.Context, i *Info, parent, body api.Object, o *metav1.CreateOptions) (runtime.Object, error)
}

// Virtual serves a kind that is computed instead of stored. It implements those
// of VirtualCreator, VirtualGetter and VirtualLister that the kind has verbs for.
type Virtual any

// VirtualCreator answers a POST: TokenReview, SubjectAccessReview … obj may be
// changed and returned.
type VirtualCreator interface {
	Create(ctx context.Context, i *Info, obj api.Object, o *metav1.CreateOptions) (runtime.Object, error)
}

// VirtualGetter answers a GET of one name.
type VirtualGetter interface {
	Get(ctx context.Context, i *Info) (runtime.Object, error)
}

// VirtualLister answers a list with a list object.
type VirtualLister interface {
	List(ctx context.Context, i *Info) (runtime.Object, error)
}

// Hook is work to do once the server serves; readyz reports it as
// poststarthook/NAME until Fn has returned nil. A Fn that fails is tried again.
type Hook struct {
	Name string
	Fn   func(ctx context.Context, b Backend) error
}

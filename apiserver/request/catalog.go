package request

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// Spelling is one version in which a kind is served, or the kind of one of its
// subresources.
type Spelling struct {
	Kind     schema.GroupVersionKind
	Resource schema.GroupVersionResource
	// Show converts an object of the stored version to this one. The result may
	// share parts with obj, or be obj, and is not modified.
	Show func(obj api.Object) (api.Object, error)
	// Store converts back, with defaults; shown belongs to it. cur is the object
	// shown was made of, for subresources that show a part.
	Store func(shown, cur api.Object) (api.Object, error)
	// Decode reads JSON of this spelling; nil for those that any decoder reads.
	Decode func(data []byte, strict bool) (api.Object, error)
}

// Catalog knows what is served. What it says may change while the server runs.
type Catalog interface {
	// Spellings are the ways a kind, or a subresource of it, is served; the version
	// of the name given, which objects are converted from and to, comes first.
	Spellings(of schema.GroupVersionResource, sub string) []Spelling
	// Resource finds a served kind: its stored resource's name and whether its
	// objects live in namespaces.
	Resource(kind schema.GroupVersionKind) (s Spelling, stored schema.GroupResource, namespaced, ok bool)
}

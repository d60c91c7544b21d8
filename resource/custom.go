package resource

import (
	"context"
	"crypto/sha256"
	"encoding/json"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/sampan-dev/sampan/api"
)

// Custom is a Kind made at run time, one per version of a custom resource. Its
// objects are unstructured and of its own version throughout; it sees to their
// stored form itself, which may be of another version.
type Custom interface {
	Kind

	// Decode reads what a user sent: fields nobody knows are dropped, and with
	// strict named by an error as api.Decode's, which comes with the object.
	Decode(f api.Format, data []byte, strict bool) (api.Object, *schema.GroupVersionKind, error)
	// Load reads stored values, of whatever version. A value that cannot be read
	// fails all of them.
	Load(values [][]byte) ([]api.Object, error)
	// Save returns what is stored of obj.
	Save(obj api.Object) ([]byte, error)
	// Readable refuses the scale of an object that has none.
	Readable(obj api.Object) error
	// Closed says why no object is taken that is not there yet; nil when it is.
	Closed() error
	// Life ends when the kind is replaced by a changed one or goes.
	Life() context.Context

	// Shape names which fields a new object has, whatever their values: those who
	// create objects of one shape own the same fields. ok is false when it cannot tell.
	Shape(obj api.Object) (sum [sha256.Size]byte, ok bool)
	// Merge is how server-side apply sees the objects.
	Merge() (managedfields.TypeConverter, error)
	// ResetFields are the fields that appliers of a subresource do not own, by
	// version.
	ResetFields(sub string) map[string][]string
	// Definition is the kind's name in OpenAPI, and its schema and its list's by
	// name. v3 says for which version of OpenAPI.
	Definition(v3 bool) (name string, schemas map[string]json.RawMessage)
	// Fingerprint changes with anything that discovery or OpenAPI show.
	Fingerprint() string
}

package rest

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
)

// plainer is a kind that knows which of its objects need no decoding.
type plainer interface {
	// Plain says that decoding what obj is encoded to would give the same object.
	Plain(obj api.Object) bool
}

// looseMerge returns what applies a merge patch to unstructured objects as they
// are, without writing and reading them; nil when that cannot be done. What it
// returns reports false for results that must be decoded to be judged.
func (o *Op) looseMerge(t types.PatchType, data []byte) func(cur api.Object) (api.Object, bool) {
	kind, ok := o.Kind.(plainer)
	if !ok || o.custom == nil || o.Version != nil || t != types.MergePatchType {
		return nil
	}
	patch, ok := api.ReadLoose(data)
	if !ok {
		return nil
	}
	return func(cur api.Object) (api.Object, bool) {
		u, ok := cur.(*unstructured.Unstructured)
		if !ok || u.GroupVersionKind() != o.GVK {
			return nil, false
		}
		next := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(u.Object)}
		mergeLoose(next.Object, patch)
		return next, kind.Plain(next)
	}
}

// mergeLoose merges as RFC 7386 says, and as the library does where that leaves
// room: what replaces something that is no object keeps its nulls.
func mergeLoose(into, patch map[string]any) {
	for key, v := range patch {
		if v == nil {
			delete(into, key)
			continue
		}
		old := into[key]
		was, wasMap := old.(map[string]any)
		is, isMap := v.(map[string]any)
		switch {
		case wasMap && isMap:
			mergeLoose(was, is)
		case wasMap:
			into[key] = runtime.DeepCopyJSONValue(v)
		default:
			v = runtime.DeepCopyJSONValue(v)
			dropNulls(v)
			into[key] = v
		}
	}
}

// dropNulls removes the members that are null; items of lists stay.
func dropNulls(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			if e == nil {
				delete(v, key)
			} else {
				dropNulls(e)
			}
		}
	case []any:
		for _, e := range v {
			dropNulls(e)
		}
	}
}

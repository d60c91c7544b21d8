package crd

import (
	"errors"
	"fmt"
	"maps"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	schemaobjectmeta "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/sampan-dev/sampan/api"
)

// Decode implements resource.Custom.
func (k *kind) Decode(f api.Format, data []byte, strict bool) (api.Object, *schema.GroupVersionKind, error) {
	if f == api.FormatJSON {
		if u, ok := k.readPlain(data); ok {
			gvk := k.info.GroupVersionKind
			return u, &gvk, nil
		}
	}
	s := json.NewSerializerWithOptions(json.DefaultMetaFactory, loose{}, loose{}, json.SerializerOptions{Yaml: f == api.FormatYAML, Strict: strict})
	var doubts []error
	got, gvk, err := s.Decode(data, &k.info.GroupVersionKind, nil)
	if err != nil {
		e, ok := runtime.AsStrictDecodingError(err)
		if !ok || got == nil {
			return nil, gvk, err
		}
		doubts = e.Errors()
	}
	u, ok := got.(*unstructured.Unstructured)
	if !ok {
		return nil, gvk, fmt.Errorf("%T is no object", got)
	}
	if u.GetKind() == "" || u.GetAPIVersion() == "" { // who does not say means what was asked for
		if u.Object == nil {
			u.Object = map[string]any{}
		}
		u.SetGroupVersionKind(*gvk)
	}
	unknown, err := k.coerce(u, coercion{named: strict})
	if err != nil {
		return nil, gvk, err
	}
	for _, field := range unknown {
		doubts = append(doubts, fmt.Errorf(`unknown field "%s"`, field))
	}
	if strict && len(doubts) > 0 {
		return u, gvk, runtime.NewStrictDecodingError(doubts)
	}
	return u, gvk, nil
}

// loose makes unstructured objects of every kind.
type loose struct{}

func (loose) New(gvk schema.GroupVersionKind) (runtime.Object, error) { return empty(gvk), nil }

func (loose) ObjectKinds(obj runtime.Object) ([]schema.GroupVersionKind, bool, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		return nil, false, runtime.NewMissingKindErr("unstructured object has no kind")
	}
	if gvk.Version == "" {
		return nil, false, runtime.NewMissingVersionErr("unstructured object has no version")
	}
	return []schema.GroupVersionKind{gvk}, false, nil
}

func (loose) Recognizes(schema.GroupVersionKind) bool { return true }

// coercion says how an object is made to fit.
type coercion struct {
	named  bool // report what is dropped
	stored bool // drop malformed metadata instead of refusing, for it is stored already
}

// coerce makes an object fit its version's schema: metadata of the right shape,
// nothing that nobody knows, no null where none may be. It returns the paths of
// what it dropped.
func (k *kind) coerce(u *unstructured.Unstructured, c coercion) ([]string, error) {
	name, hasKind, err := unstructured.NestedString(u.Object, "kind")
	if err != nil {
		return nil, err
	}
	version, hasVersion, err := unstructured.NestedString(u.Object, "apiVersion")
	if err != nil {
		return nil, err
	}
	kept, untouched := u.Object["metadata"], plain(u.Object["metadata"])
	var meta *metav1.ObjectMeta
	var hasMeta bool
	var unknown []string
	if !untouched {
		meta, hasMeta, unknown, err = schemaobjectmeta.GetObjectMetaWithOptions(u.Object, schemaobjectmeta.ObjectMetaOptions{
			DropMalformedFields: c.stored, ReturnUnknownFieldPaths: c.named,
		})
		if err != nil {
			return nil, err
		}
	}
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return nil, err
	}
	if gv.Group == k.info.Group && name == k.info.Kind {
		s, err := k.schemaOf(gv.Version)
		if err != nil {
			return nil, err
		}
		p, err := k.plainlyOf(gv.Version)
		if err != nil {
			return nil, err
		}
		trimmed := untouched && p.isTrimmed(u.Object)
		if !trimmed && !k.f.crd.Spec.PreserveUnknownFields {
			unknown = append(unknown, pruning.PruneWithOptions(u.Object, s, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: c.named})...)
			defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s)
		}
		if p.embedded {
			bad, paths := schemaobjectmeta.CoerceWithOptions(nil, u.Object, s, false, schemaobjectmeta.CoerceOptions{
				DropInvalidFields: c.stored, ReturnUnknownFieldPaths: c.named,
			})
			if bad != nil {
				return nil, bad
			}
			unknown = append(unknown, paths...)
		}
		if c.stored && hasMeta && meta.Generation == 0 {
			meta.Generation = 1 // written before generations were kept
		}
	}
	if hasKind {
		u.SetKind(name)
	}
	if hasVersion {
		u.SetAPIVersion(version)
	}
	if untouched {
		u.Object["metadata"] = kept
		if c.stored && u.GetGeneration() == 0 {
			u.SetGeneration(1)
		}
	}
	if hasMeta {
		return unknown, schemaobjectmeta.SetObjectMeta(u.Object, meta)
	}
	return unknown, nil
}

// schemaOf is the schema of any version, served or not.
func (k *kind) schemaOf(version string) (*structuralschema.Structural, error) {
	if o := k.f.kinds[version]; o != nil {
		return o.schema()
	}
	for i := range k.f.crd.Spec.Versions {
		if v := &k.f.crd.Spec.Versions[i]; v.Name == version {
			return structural(v, k.f.crd.Spec.PreserveUnknownFields)
		}
	}
	return nil, nil
}

// plainlyOf is the checks of any version, served or not.
func (k *kind) plainlyOf(version string) (*plainly, error) {
	if o := k.f.kinds[version]; o != nil {
		return o.plainly()
	}
	s, err := k.schemaOf(version)
	return newPlainly(s, k.f.crd.Spec.PreserveUnknownFields), err
}

// Default fills in what the version's schema has defaults for.
func (k *kind) Default(obj api.Object) { k.complete(content(obj)) }

func (k *kind) complete(obj map[string]any) {
	s, err := k.schema()
	if err != nil || s == nil {
		return
	}
	if p, err := k.plainly(); err == nil && p.isComplete(obj) {
		return
	}
	defaulting.Default(obj, s)
}

// Load implements resource.Custom. A value is completed in the version it was
// stored in, then converted.
func (k *kind) Load(values [][]byte) ([]api.Object, error) {
	objs := make([]*unstructured.Unstructured, len(values))
	for i, v := range values {
		if u, ok := k.loadPlain(v); ok {
			k.complete(u.Object)
			objs[i] = u
			continue
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(v); err != nil {
			return nil, fmt.Errorf("decode: %s: %w", k.f.prefix(), err)
		}
		if _, err := k.coerce(u, coercion{stored: true}); err != nil {
			return nil, fmt.Errorf("decode: %s: %s: %w", k.f.prefix(), u.GetName(), err)
		}
		gv, _ := schema.ParseGroupVersion(u.GetAPIVersion())
		if s, err := k.schemaOf(gv.Version); err != nil {
			return nil, err
		} else if s != nil {
			defaulting.Default(u.Object, s)
		}
		objs[i] = u
	}
	objs, err := k.f.converts(objs, k.v.Name)
	if err != nil {
		return nil, err
	}
	out := make([]api.Object, len(objs))
	for i, u := range objs {
		out[i] = u
	}
	return out, nil
}

// Save implements resource.Custom.
func (k *kind) Save(obj api.Object) ([]byte, error) {
	u := obj.(*unstructured.Unstructured)
	if k.v.Name == k.f.storage {
		return encoded(u)
	}
	if _, plain := k.f.convert.(relabel); plain && k.f.crd.Spec.PreserveUnknownFields {
		other := &unstructured.Unstructured{Object: maps.Clone(u.Object)}
		other.SetAPIVersion(k.f.gvk(k.f.storage).GroupVersion().String())
		return encoded(other)
	}
	stored, err := k.f.converted(u, k.f.storage)
	if err != nil {
		return nil, err
	}
	return encoded(stored.(*unstructured.Unstructured))
}

// encoded is an object as it is stored, with the newline that upstream's encoder
// ends with.
func encoded(u *unstructured.Unstructured) ([]byte, error) {
	data, err := api.AppendLoose(make([]byte, 0, 2048), u.Object)
	if err != nil {
		return nil, fmt.Errorf("encode: %s: %w", u.GetName(), err)
	}
	return append(data, '\n'), nil
}

// converted gives an object in another version; the one passed in stays as it is.
func (f *family) converted(obj api.Object, version string) (api.Object, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, errors.New("CR conversion failed")
	}
	if u.GetAPIVersion() == f.gvk(version).GroupVersion().String() {
		return u, nil
	}
	out, err := f.converts([]*unstructured.Unstructured{u.DeepCopy()}, version)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// converts brings objects, which it may change, to a version, those that are
// not there yet all at once.
func (f *family) converts(objs []*unstructured.Unstructured, version string) ([]*unstructured.Unstructured, error) {
	want := f.gvk(version)
	var at []int
	var pending []*unstructured.Unstructured
	for i, u := range objs {
		gvk := u.GroupVersionKind()
		if gvk.GroupVersion() == want.GroupVersion() {
			continue
		}
		if gvk.Group != want.Group || !f.knows(gvk.Version) {
			return nil, fmt.Errorf("request to convert CR from an invalid group/version: %s", gvk.GroupVersion())
		}
		at, pending = append(at, i), append(pending, u)
	}
	if len(pending) == 0 {
		return objs, nil
	}
	done, err := f.convert.convert(pending, want.GroupVersion())
	if err != nil {
		return nil, err
	}
	k := f.kinds[version]
	for i, u := range done {
		if k != nil {
			if _, err := k.coerce(u, coercion{}); err != nil {
				return nil, err
			}
		}
		objs[at[i]] = u
	}
	return objs, nil
}

func (f *family) knows(version string) bool {
	for i := range f.crd.Spec.Versions {
		if f.crd.Spec.Versions[i].Name == version {
			return true
		}
	}
	return false
}

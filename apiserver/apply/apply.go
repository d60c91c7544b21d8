package apply

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// Types finds the merge type of a definition: "io.k8s.api.core.v1.Pod".
type Types interface {
	Type(name string) (typed.ParseableType, error)
}

// Fields keeps managedFields.
type Fields struct {
	types Types

	mu       sync.Mutex
	managers map[key]*managedfields.FieldManager
	known    map[schema.GroupVersionKind]typed.ParseableType
	fresh    memory
}

type key struct {
	info *resource.Info
	gv   schema.GroupVersion
	sub  string
}

// New returns Fields that have made nothing yet.
func New(t Types) *Fields {
	return &Fields{types: t, managers: map[key]*managedfields.FieldManager{}, known: map[schema.GroupVersionKind]typed.ParseableType{}}
}

// Update writes into obj who owns what after manager made it of live, which is
// nil or empty when the object is new.
func (f *Fields) Update(k resource.Kind, v *resource.Version, sub string, live, obj api.Object, manager string) error {
	api.SetKind(obj, k.Info().GroupVersionKind)
	live = ofKind(k, live)
	if live.GetUID() == "" && sub == "" && len(obj.GetManagedFields()) == 0 {
		return f.first(k, v, live, obj, manager)
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if unchangedLoose(live, u) || quick(k, servedKind(k.Info(), v).GroupVersion(), sub, live, u, manager) {
			return nil
		}
	} else if unchanged(live, obj) {
		obj.SetManagedFields(live.GetManagedFields())
		return nil
	}
	return f.update(k, v, sub, live, obj, manager)
}

func (f *Fields) update(k resource.Kind, v *resource.Version, sub string, live, obj api.Object, manager string) error {
	m, err := f.manager(k, v, sub)
	if err != nil {
		return err
	}
	_, err = m.Update(live, obj, manager)
	return err
}

// ofKind is live with its kind named; a shared object is not written to.
func ofKind(k resource.Kind, live api.Object) api.Object {
	switch {
	case live == nil:
		live = k.New()
	case live.GetObjectKind().GroupVersionKind() == k.Info().GroupVersionKind:
		return live
	default:
		live = live.DeepCopyObject().(api.Object)
	}
	api.SetKind(live, k.Info().GroupVersionKind)
	return live
}

// unchanged says that an update leaves all claims as they are: it asks for none
// and differs in nothing that has an owner. Finding out costs a tenth of a merge.
func unchanged(live, obj api.Object) bool {
	claims := obj.GetManagedFields()
	if live.GetUID() == "" || len(live.GetManagedFields()) == 0 || claims != nil && !slices.EqualFunc(claims, live.GetManagedFields(), sameClaim) {
		return false
	}
	version := obj.GetResourceVersion()
	defer func() {
		obj.SetResourceVersion(version)
		obj.SetManagedFields(claims)
	}()
	obj.SetResourceVersion(live.GetResourceVersion())
	obj.SetManagedFields(live.GetManagedFields())
	return reflect.DeepEqual(live, obj)
}

// unchangedLoose is unchanged for unstructured objects, compared as they are;
// it writes the old claims into obj if so.
func unchangedLoose(before api.Object, obj *unstructured.Unstructured) bool {
	live, ok := before.(*unstructured.Unstructured)
	if !ok || live.GetUID() == "" {
		return false
	}
	was, _ := live.Object["metadata"].(map[string]any)
	is, _ := obj.Object["metadata"].(map[string]any)
	claims, ok := was["managedFields"].([]any)
	if !ok || len(claims) == 0 || is == nil {
		return false
	}
	if asked, ok := is["managedFields"]; ok && !api.SameLoose(asked, was["managedFields"]) {
		return false
	}
	if !equalBut(live.Object, obj.Object, "metadata") || !equalBut(was, is, "managedFields", "resourceVersion") {
		return false
	}
	is["managedFields"] = claims // shared: whoever changes claims writes new ones
	return true
}

// equalBut compares two maps but for some keys.
func equalBut(a, b map[string]any, but ...string) bool {
	for key, v := range a {
		if w, ok := b[key]; !slices.Contains(but, key) && (!ok || !api.SameLoose(v, w)) {
			return false
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok && !slices.Contains(but, key) {
			return false
		}
	}
	return true
}

func sameClaim(a, b metav1.ManagedFieldsEntry) bool { return reflect.DeepEqual(a, b) }

// Apply merges a configuration into live, which is nil or empty when the object
// is new, and returns the whole new object. The configuration of the scale
// subresource is a Scale.
func (f *Fields) Apply(k resource.Kind, v *resource.Version, sub string, live api.Object, patch map[string]any, manager string, force bool) (api.Object, error) {
	m, err := f.manager(k, v, sub)
	if err != nil {
		return nil, err
	}
	doc := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(patch)}
	if sub == "scale" && k.Info().HasScale {
		doc = unscale(k.Info(), v, doc)
	}
	live = ofKind(k, live)
	got, err := m.Apply(live.DeepCopyObject(), doc, manager, force)
	if err != nil {
		return nil, err
	}
	obj, ok := got.(api.Object)
	if !ok {
		return nil, fmt.Errorf("apply: %T is no object", got)
	}
	keepTimes(live, obj)
	return obj, nil
}

// keepTimes gives the claims their old times back if those are all that an
// apply changed, so that applying again writes nothing.
func keepTimes(live, obj api.Object) {
	was, is := live.GetManagedFields(), obj.GetManagedFields()
	same := slices.EqualFunc(was, is, func(a, b metav1.ManagedFieldsEntry) bool {
		a.Time, b.Time = nil, nil
		return reflect.DeepEqual(a, b)
	})
	if !same {
		return
	}
	obj.SetManagedFields(was)
	if !equality.Semantic.DeepEqual(live, obj) {
		obj.SetManagedFields(is)
	}
}

// unscale makes of an applied Scale a configuration of the kind that says no
// more than the Scale did.
func unscale(i *resource.Info, v *resource.Version, scale *unstructured.Unstructured) *unstructured.Unstructured {
	doc := &unstructured.Unstructured{}
	doc.SetGroupVersionKind(servedKind(i, v))
	doc.SetName(scale.GetName())
	doc.SetNamespace(scale.GetNamespace())
	if n, ok, err := unstructured.NestedFieldNoCopy(scale.Object, "spec", "replicas"); ok && err == nil {
		path := strings.Split(strings.TrimPrefix(cmp.Or(i.ScalePath, "spec.replicas"), "."), ".")
		at := doc.Object
		for _, p := range path[:len(path)-1] {
			next := map[string]any{}
			at[p], at = next, next
		}
		at[path[len(path)-1]] = n
	}
	return doc
}

// Forget drops the managers of a kind whose definition changed.
func (f *Fields) Forget(i *resource.Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.managers {
		if k.info.GroupResource() == i.GroupResource() {
			delete(f.managers, k)
		}
	}
}

func (f *Fields) manager(k resource.Kind, v *resource.Version, sub string) (*managedfields.FieldManager, error) {
	i := k.Info()
	gvk := servedKind(i, v)
	at := key{i, gvk.GroupVersion(), sub}
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.managers[at]; m != nil {
		return m, nil
	}
	c := &converter{kind: k, info: i}
	types := managedfields.TypeConverter(&typer{f})
	reset := resets(i, sub)
	if custom, ok := k.(resource.Custom); ok {
		var err error
		if types, err = custom.Merge(); err != nil {
			return nil, fmt.Errorf("apply: %s: %w", gvk, err)
		}
		reset = fieldpath.NewExcludeFilterSetMap(pathSets(custom.ResetFields(sub)))
	}
	m, err := managedfields.NewDefaultCRDFieldManager(types, c, c, c, gvk, i.GroupVersionKind.GroupVersion(), sub, reset)
	if err != nil {
		return nil, fmt.Errorf("apply: %s: %w", gvk, err)
	}
	f.managers[at] = m
	return m, nil
}

// servedKind is the group, version and kind that the user spoke.
func servedKind(i *resource.Info, v *resource.Version) schema.GroupVersionKind {
	if v == nil {
		return i.GroupVersionKind
	}
	return versionKind(i, v)
}

// versionKind is the group, version and kind of another served version.
func versionKind(i *resource.Info, v *resource.Version) schema.GroupVersionKind {
	gvk := schema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind}
	if gvk.Kind == "" {
		gvk.Kind = i.Kind
	}
	return gvk
}

// resets are the fields that appliers of a subresource do not own, for every
// version.
func resets(i *resource.Info, sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	paths := i.ResetFields
	if sub != "" {
		paths = nil
		for _, s := range i.Subs {
			if s.Name == sub {
				paths = s.ResetFields
			}
		}
	}
	if len(paths) == 0 {
		return nil
	}
	byVersion := map[string][]string{i.GroupVersionKind.GroupVersion().String(): paths}
	for n := range i.Also {
		byVersion[versionKind(i, &i.Also[n]).GroupVersion().String()] = paths
	}
	return fieldpath.NewExcludeFilterSetMap(pathSets(byVersion))
}

// pathSets reads dotted paths.
func pathSets(byVersion map[string][]string) map[fieldpath.APIVersion]*fieldpath.Set {
	out := map[fieldpath.APIVersion]*fieldpath.Set{}
	for version, paths := range byVersion {
		set := fieldpath.NewSet()
		for _, p := range paths {
			var elements []any
			for e := range strings.SplitSeq(p, ".") {
				elements = append(elements, e)
			}
			if path, err := fieldpath.MakePath(elements...); err == nil {
				set.Insert(path)
			}
		}
		out[fieldpath.APIVersion(version)] = set
	}
	return out
}

// Merging finds how objects of a served kind are merged.
func (f *Fields) Merging(kinds func() []resource.Kind) func(schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	return func(gvk schema.GroupVersionKind) (managedfields.TypeConverter, error) {
		for _, k := range kinds() {
			if c, ok := k.(resource.Custom); ok && c.Info().GroupVersionKind == gvk {
				return c.Merge()
			}
		}
		return &typer{f}, nil
	}
}

// typer finds objects' merge types.
type typer struct{ f *Fields }

func (t *typer) typeOf(gvk schema.GroupVersionKind) (typed.ParseableType, error) {
	t.f.mu.Lock()
	p, ok := t.f.known[gvk]
	t.f.mu.Unlock()
	if ok {
		return p, nil
	}
	name, err := api.Scheme().ToOpenAPIDefinitionName(gvk)
	if err != nil {
		return p, err
	}
	if p, err = t.f.types.Type(name); err != nil {
		return p, err
	}
	t.f.mu.Lock()
	t.f.known[gvk] = p
	t.f.mu.Unlock()
	return p, nil
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t *typer) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	p, err := t.typeOf(obj.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return p.FromUnstructured(u.UnstructuredContent(), opts...)
	}
	// A Go struct has the right shape already: no need to validate it.
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	return typed.AsTypedUnvalidated(v, p.Schema, p.TypeRef), nil
}

// TypedToObject implements managedfields.TypeConverter.
func (t *typer) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	doc, ok := v.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("apply: %T is no object", v.AsValue().Unstructured())
	}
	return &unstructured.Unstructured{Object: doc}, nil
}

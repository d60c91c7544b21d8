package apply

import (
	"fmt"
	"strings"
	"sync"

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

// Update writes into obj who owns what after manager made it of live.
func (f *Fields) Update(k resource.Kind, v *resource.Version, sub string, live, obj api.Object, manager string) error {
	api.SetKind(obj, k.Info().GroupVersionKind)
	if live.GetUID() == "" && sub == "" && len(obj.GetManagedFields()) == 0 {
		return f.first(k, v, live, obj, manager)
	}
	return f.update(k, v, sub, live, obj, manager)
}

func (f *Fields) update(k resource.Kind, v *resource.Version, sub string, live, obj api.Object, manager string) error {
	m, err := f.manager(k, v, sub)
	if err != nil {
		return err
	}
	if live.GetObjectKind().GroupVersionKind().Empty() {
		api.SetKind(live, k.Info().GroupVersionKind)
	}
	_, err = m.Update(live, obj, manager)
	return err
}

// Apply merges a configuration into live and returns the whole new object.
func (f *Fields) Apply(k resource.Kind, v *resource.Version, sub string, live api.Object, patch map[string]any, manager string, force bool) (api.Object, error) {
	m, err := f.manager(k, v, sub)
	if err != nil {
		return nil, err
	}
	doc := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(patch)}
	got, err := m.Apply(live.DeepCopyObject(), doc, manager, force)
	if err != nil {
		return nil, err
	}
	obj, ok := got.(api.Object)
	if !ok {
		return nil, fmt.Errorf("apply: %T is no object", got)
	}
	return obj, nil
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
	gvk := i.GroupVersionKind
	if v != nil {
		gvk = versionKind(i, v)
	}
	at := key{i, gvk.GroupVersion(), sub}
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.managers[at]; m != nil {
		return m, nil
	}
	c := &converter{kind: k, info: i}
	types := managedfields.TypeConverter(&typer{f})
	if _, dynamic := k.New().(*unstructured.Unstructured); dynamic {
		types = managedfields.NewDeducedTypeConverter()
	}
	m, err := managedfields.NewDefaultCRDFieldManager(types, c, c, c, gvk, i.GroupVersionKind.GroupVersion(), sub, resets(i, sub))
	if err != nil {
		return nil, fmt.Errorf("apply: %s: %w", gvk, err)
	}
	f.managers[at] = m
	return m, nil
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
	sets := map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(i.GroupVersionKind.GroupVersion().String()): set}
	for n := range i.Also {
		sets[fieldpath.APIVersion(versionKind(i, &i.Also[n]).GroupVersion().String())] = set
	}
	return fieldpath.NewExcludeFilterSetMap(sets)
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

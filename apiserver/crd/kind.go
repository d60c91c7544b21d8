package crd

import (
	"context"
	"slices"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// kind is one version of a custom resource.
type kind struct {
	f       *family
	v       *apiextensionsv1.CustomResourceDefinitionVersion
	info    resource.Info
	columns []column
	fields  map[string]*path
	scale   *scale

	apiVersion string

	plainly func() (*plainly, error)
	form    func() (*form, error)

	schema func() (*structuralschema.Structural, error)
	rules  func() (*rules, error)
	merge  func() (managedfields.TypeConverter, error)
}

var _ resource.Custom = (*kind)(nil)

// rules are a version's schema, compiled.
type rules struct {
	structural *structuralschema.Structural
	plainly    *plainly
	surely     check // the whole is valid without asking
	whole      schemavalidation.SchemaValidator
	status     schemavalidation.SchemaValidator
	cel        *cel.Validator
	quantities bool // a rule reads quantities out of texts
	scale      *apiextensions.CustomResourceSubresourceScale
}

func verbs() []string {
	return []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
}

func newKind(f *family, v *apiextensionsv1.CustomResourceDefinitionVersion) *kind {
	k := &kind{f: f, v: v, columns: columnsOf(v), fields: fieldsOf(v)}
	i := &k.info
	i.GroupVersionKind = f.gvk(v.Name)
	k.apiVersion = i.GroupVersionKind.GroupVersion().String()
	i.Plural, i.Singular, i.ListKind = f.names.Plural, singular(&f.names), f.names.ListKind
	i.Short, i.Categories = f.names.ShortNames, f.names.Categories
	i.ClusterScoped = f.crd.Spec.Scope == apiextensionsv1.ClusterScoped
	i.Prefix, i.Verbs, i.StorageVersion, i.Hidden = f.prefix(), verbs(), f.storage, !v.Served
	if f.terminating() {
		i.Listed = []string{"delete", "deletecollection", "get", "list", "watch"}
	}
	if k.hasStatus() {
		i.ResetFields = []string{"status"}
		i.Subs = []resource.SubInfo{{Name: "status", ResetFields: []string{"metadata", "spec"}}}
	}
	if v.Subresources != nil && v.Subresources.Scale != nil {
		k.scale = newScale(v.Subresources.Scale)
		i.HasScale, i.ScalePath = true, strings.TrimPrefix(v.Subresources.Scale.SpecReplicasPath, ".")
	}
	i.Columns = []resource.ColumnInfo{{Name: "Name", Type: "string", Format: "name", Description: resource.Doc(metav1.ObjectMeta{}, "name")}}
	for _, c := range k.columns {
		i.Columns = append(i.Columns, c.ColumnInfo)
	}
	i.Fields = []string{"metadata.name"}
	if !i.ClusterScoped {
		i.Fields = append(i.Fields, "metadata.namespace")
	}
	for name := range k.fields {
		i.Fields = append(i.Fields, name)
	}
	slices.Sort(i.Fields)
	i.Warning = f.deprecation(v)
	k.schema = once(func() (*structuralschema.Structural, error) { return structural(v, f.crd.Spec.PreserveUnknownFields) })
	k.plainly = once(func() (*plainly, error) {
		s, err := k.schema()
		return newPlainly(s, f.crd.Spec.PreserveUnknownFields), err
	})
	k.form = once(func() (*form, error) {
		s, err := k.schema()
		return newForm(s), err
	})
	k.rules = once(k.compile)
	k.merge = once(k.mergeTypes)
	return k
}

func (k *kind) hasStatus() bool { return k.v.Subresources != nil && k.v.Subresources.Status != nil }

// others are the versions that objects can be converted to and from.
func (k *kind) others() []resource.Version {
	var out []resource.Version
	for _, v := range k.f.crd.Spec.Versions {
		if v.Name == k.v.Name {
			continue
		}
		gvk := k.f.gvk(v.Name)
		out = append(out, resource.Version{
			Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Plural: k.info.Plural, Apart: true,
			New:   func() api.Object { return empty(gvk) },
			Store: func(src api.Object) (api.Object, error) { return k.f.converted(src, k.v.Name) },
			Show:  func(src api.Object) (api.Object, error) { return k.f.converted(src, gvk.Version) },
		})
	}
	return out
}

func empty(gvk schema.GroupVersionKind) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: make(map[string]any, 4)}
	u.SetGroupVersionKind(gvk)
	return u
}

// compile turns the schema into what objects are judged by.
func (k *kind) compile() (*rules, error) {
	r := &rules{}
	var err error
	if r.plainly, err = k.plainly(); err != nil {
		return nil, err
	}
	if r.structural, err = k.schema(); err != nil {
		return nil, err
	}
	in, err := internalSchema(k.v)
	if err != nil {
		return nil, err
	}
	r.surely = surely(r.structural)
	if r.structural == nil && in != nil { // a schema of old, which is not structural
		r.surely = func(any) bool { return false }
	}
	if r.whole, _, err = schemavalidation.NewSchemaValidator(in); err != nil {
		return nil, err
	}
	if k.hasStatus() && in != nil {
		if status, ok := in.Properties["status"]; ok {
			if r.status, _, err = schemavalidation.NewSchemaValidator(&status); err != nil {
				return nil, err
			}
		}
	}
	if k.scale != nil {
		r.scale = &apiextensions.CustomResourceSubresourceScale{}
		if err := apiextensionsv1.Convert_v1_CustomResourceSubresourceScale_To_apiextensions_CustomResourceSubresourceScale(k.v.Subresources.Scale, r.scale, nil); err != nil {
			return nil, err
		}
	}
	r.cel = cel.NewValidator(r.structural, true, celconfig.PerCallLimit)
	r.quantities = readsQuantities(r.structural)
	return r, nil
}

func (k *kind) Info() *resource.Info { return &k.info }
func (k *kind) New() api.Object      { return empty(k.info.GroupVersionKind) }

func (k *kind) Closed() error         { return k.f.closed() }
func (k *kind) Life() context.Context { return k.f.life }
func (k *kind) Fingerprint() string   { return k.f.fingerprint() }

func (k *kind) Merge() (managedfields.TypeConverter, error) { return k.merge() }

// ResetFields has every version's, for an applier may have used another.
func (k *kind) ResetFields(sub string) map[string][]string {
	out := map[string][]string{}
	for name, o := range k.f.kinds {
		version := k.f.gvk(name).GroupVersion().String()
		switch {
		case sub == "" && o == k:
			if o.hasStatus() {
				out[version] = []string{"status"}
			}
		case sub == "status" && o.hasStatus():
			out[version] = []string{"metadata", "spec"}
		}
	}
	return out
}

// content is what an object holds.
func content(obj api.Object) map[string]any { return obj.(*unstructured.Unstructured).Object }

// Prepare keeps the status apart where it has a subresource of its own.
func (k *kind) Prepare(_ *resource.Request, next, prev api.Object) {
	if !k.hasStatus() {
		return
	}
	delete(content(next), "status")
	if prev != nil {
		if status, ok := content(prev)["status"]; ok {
			content(next)["status"] = status
			return
		}
	}
	k.Default(next) // a status may have defaults, which readers are to see
}

// SpecChanged counts every change outside the metadata.
func (k *kind) SpecChanged(next, prev api.Object) (changed, known bool) {
	a, b := content(next), content(prev)
	for key, v := range a {
		if key == "metadata" {
			continue
		}
		if w, ok := b[key]; !ok || !api.SameLoose(v, w) && !equality.Semantic.DeepEqual(v, w) {
			return true, true
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok && key != "metadata" {
			return true, true
		}
	}
	return false, true
}

func (k *kind) ValidateName(name string, prefix bool) []string {
	return apivalidation.NameIsDNSSubdomain(name, prefix)
}

func (k *kind) ValidateAs(*resource.Request, api.Object, api.Object) field.ErrorList { return nil }

func (k *kind) Sub(name string) (resource.SubKind, bool) {
	if name != "status" || !k.hasStatus() {
		return nil, false
	}
	return &statusSub{k}, true
}

func (k *kind) Cells(obj api.Object, now time.Time) []any {
	cells := make([]any, 1, len(k.columns)+1)
	cells[0] = obj.GetName()
	for i := range k.columns {
		cells = append(cells, k.columns[i].cell(content(obj), now))
	}
	return cells
}

func (k *kind) Field(obj api.Object, name string) (string, bool) {
	switch name {
	case "metadata.name":
		return obj.GetName(), true
	case "metadata.namespace":
		return obj.GetNamespace(), !k.info.ClusterScoped
	}
	p, ok := k.fields[name]
	if !ok {
		return "", false
	}
	return p.text(content(obj)), true
}

func (k *kind) Scale(obj api.Object) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
	return k.scale.get(content(obj))
}

func (k *kind) SetScale(next api.Object, replicas int32) { k.scale.set(content(next), replicas) }

// Readable implements resource.Custom.
func (k *kind) Readable(obj api.Object) error {
	if k.scale == nil {
		return nil
	}
	return k.scale.check(content(obj))
}

func (k *kind) Grace(api.Object, *int64) (seconds int64, graceful bool) { return 0, false }
func (k *kind) BeginDelete(api.Object)                                  {}
func (k *kind) Held(api.Object) bool                                    { return false }
func (k *kind) TTL(api.Object) int64                                    { return 0 }

func (k *kind) Ledger(context.Context, resource.Ledger, api.Object, api.Object) error { return nil }

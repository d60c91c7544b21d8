package crd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

const (
	metaPrefix = "io.k8s.apimachinery.pkg.apis.meta.v1."
	gvkMark    = "x-kubernetes-group-version-kind"
)

// modelName is how OpenAPI calls a kind: "com.example.v1.CronTab".
func modelName(group, version, kind string) string {
	parts := strings.Split(group, ".")
	slices.Reverse(parts)
	return strings.Join(parts, ".") + "." + version + "." + kind
}

func (k *kind) model() string { return modelName(k.info.Group, k.info.Version, k.info.Kind) }

// Definition implements resource.Custom.
func (k *kind) Definition(v3 bool) (name string, schemas map[string]json.RawMessage) {
	schemas = map[string]json.RawMessage{}
	for name, s := range map[string]*spec.Schema{
		k.model(): k.document(v3), modelName(k.info.Group, k.info.Version, k.info.ListName()): k.listDocument(v3),
	} {
		if data, err := json.Marshal(s); err == nil {
			schemas[name] = data
		}
	}
	return k.model(), schemas
}

func ref(name string, v3 bool) *spec.Schema {
	if v3 {
		// A reference stands alone, as for built-in types.
		return &spec.Schema{SchemaProps: spec.SchemaProps{AllOf: []spec.Schema{*spec.RefSchema("#/components/schemas/" + name)}, Default: map[string]any{}}}
	}
	return spec.RefSchema("#/definitions/" + name)
}

func typeMeta(s *spec.Schema) {
	for _, name := range []string{"apiVersion", "kind"} {
		s.SetProperty(name, *spec.StringProperty().WithDescription(metav1.TypeMeta{}.SwaggerDoc()[name]))
	}
}

func metaRef(kind string, v3 bool) spec.Schema {
	s := ref(metaPrefix+kind, v3)
	s.Default = nil
	return *s.WithDescription(map[string]string{
		"ObjectMeta": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
		"ListMeta":   "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
	}[kind])
}

func (k *kind) mark(kind string) []any {
	return []any{map[string]any{"group": k.info.Group, "version": k.info.Version, "kind": kind}}
}

// published is the schema as documents show it; nil when there is none fit to show.
func (k *kind) published() *structuralschema.Structural {
	in, err := internalSchema(k.v)
	if err != nil || in == nil {
		return nil
	}
	s, err := structuralschema.NewStructural(in)
	if err != nil || len(structuralschema.ValidateStructural(nil, s)) > 0 {
		return nil
	}
	return s.Unfold()
}

// document is the schema of an object with what every object has. Clients of
// OpenAPI v2 take a list of fields for complete, so those that are open are
// shown without any.
func (k *kind) document(v3 bool) *spec.Schema {
	s := k.published()
	out := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	if s != nil && (v3 || !s.XPreserveUnknownFields && !k.f.crd.Spec.PreserveUnknownFields) {
		if !v3 {
			s = openapiv2.ToStructuralOpenAPIV2(s)
		}
		out = s.ToKubeOpenAPI()
		out.SetProperty("metadata", metaRef("ObjectMeta", v3))
		typeMeta(out)
		embed(out, v3)
	}
	out.AddExtension(gvkMark, k.mark(k.info.Kind))
	if v3 {
		k.markSelectable(out)
	}
	return out
}

func (k *kind) listDocument(v3 bool) *spec.Schema {
	item := ref(k.model(), v3)
	if v3 {
		item = spec.RefSchema("#/components/schemas/" + k.model())
	}
	out := new(spec.Schema).Typed("object", "").
		WithDescription(fmt.Sprintf("%s is a list of %s", k.info.ListName(), k.info.Kind)).
		WithRequired("items").
		SetProperty("items", *spec.ArrayProperty(item).WithDescription(
			fmt.Sprintf("List of %s. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", k.info.Plural))).
		SetProperty("metadata", metaRef("ListMeta", v3))
	typeMeta(out)
	out.AddExtension(gvkMark, k.mark(k.info.ListName()))
	if v3 {
		k.markSelectable(out)
	}
	return out
}

func (k *kind) markSelectable(s *spec.Schema) {
	var list []any
	for _, f := range k.v.SelectableFields {
		list = append(list, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
	}
	if list != nil {
		s.AddExtension("x-kubernetes-selectable-fields", list)
	}
}

// embed gives objects within objects what every object has.
func embed(s *spec.Schema, v3 bool) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		embed(&p, v3)
		s.Properties[name] = p
	}
	if s.Items != nil {
		embed(s.Items.Schema, v3)
	}
	if s.AdditionalProperties != nil {
		embed(s.AdditionalProperties.Schema, v3)
	}
	if open, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); open && !v3 {
		return
	}
	if whole, _ := s.Extensions.GetBool("x-kubernetes-embedded-resource"); !whole {
		return
	}
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription("apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"))
	s.SetProperty("kind", *spec.StringProperty().WithDescription("kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"))
	s.SetProperty("metadata", metaRef("ObjectMeta", v3))
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, name) {
			s.Required = append(s.Required, name)
		}
	}
}

// mergeTypes are the types that server-side apply merges all versions by.
// Without the schemas of metadata they are guessed from the objects.
func (k *kind) mergeTypes() (managedfields.TypeConverter, error) {
	if k.f.shared.definitions == nil {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	raw, err := k.f.shared.definitions(metaPrefix + "ObjectMeta")
	if err != nil {
		return nil, err
	}
	models := make(map[string]*spec.Schema, len(raw)+len(k.f.crd.Spec.Versions))
	for name, data := range raw {
		s := &spec.Schema{}
		if err := json.Unmarshal(data, s); err != nil {
			return nil, fmt.Errorf("schema of %s: %w", name, err)
		}
		models[name] = s
	}
	for _, o := range k.f.kinds {
		models[o.model()] = o.document(true)
	}
	return managedfields.NewTypeConverter(models, k.f.crd.Spec.PreserveUnknownFields)
}

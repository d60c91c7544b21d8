package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/resource"
)

// Schemas finds the schema of a served kind, every reference in it replaced by
// what it refers to.
func Schemas(kinds func() []resource.Kind) func(schema.GroupVersionKind) (*spec.Schema, error) {
	return func(gvk schema.GroupVersionKind) (*spec.Schema, error) {
		for _, k := range kinds() {
			c, ok := k.(resource.Custom)
			if !ok || c.Info().GroupVersionKind != gvk {
				continue
			}
			name, own := c.Definition(true)
			raw, err := Definitions(metaPrefix + "ObjectMeta")
			if err != nil {
				return nil, err
			}
			maps.Copy(raw, own)
			return (&resolver{raw: raw, within: map[string]bool{}}).named(name)
		}
		name := definitionOf(gvk)
		raw, err := Definitions(name)
		if err != nil {
			return nil, err
		}
		return (&resolver{raw: raw, within: map[string]bool{}}).named(name)
	}
}

// resolver replaces references. A schema within itself is an object of any shape.
type resolver struct {
	raw    map[string]json.RawMessage
	within map[string]bool
}

func (r *resolver) named(name string) (*spec.Schema, error) {
	raw, ok := r.raw[name]
	if !ok {
		return nil, fmt.Errorf("openapi: no definition of %s", name)
	}
	if r.within[name] {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}, nil
	}
	r.within[name] = true
	defer delete(r.within, name)
	s := &spec.Schema{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("openapi: %s: %w", name, err)
	}
	return s, r.resolve(s)
}

func (r *resolver) resolve(s *spec.Schema) error {
	ref := s.Ref.String()
	if ref == "" && len(s.AllOf) == 1 { // a reference with words of its own
		ref = s.AllOf[0].Ref.String()
	}
	if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); ok {
		to, err := r.named(name)
		if err != nil {
			return err
		}
		*s = *to
		return nil
	}
	for name, p := range s.Properties {
		if err := r.resolve(&p); err != nil {
			return err
		}
		s.Properties[name] = p
	}
	if s.Items != nil && s.Items.Schema != nil {
		if err := r.resolve(s.Items.Schema); err != nil {
			return err
		}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		return r.resolve(s.AdditionalProperties.Schema)
	}
	return nil
}

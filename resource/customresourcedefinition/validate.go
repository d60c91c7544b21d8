package customresourcedefinition

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

func validate(next, prev *definition) field.ErrorList {
	in, err := judged(next)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if prev == nil {
		return validation.ValidateCustomResourceDefinition(context.Background(), in)
	}
	old, err := judged(prev)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return validation.ValidateCustomResourceDefinitionUpdate(context.Background(), in, old)
}

func validateStatus(next, prev *definition) field.ErrorList {
	in, err := judged(next)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return validation.ValidateUpdateCustomResourceDefinitionStatus(context.Background(), in, in)
}

// judged is a definition with no more metadata than the kind's own rules look
// at: the server judges the rest.
func judged(c *definition) (*apiextensions.CustomResourceDefinition, error) {
	in, err := internal(c)
	if err != nil {
		return nil, err
	}
	in.ObjectMeta = metav1.ObjectMeta{Name: cmp.Or(c.Name, c.Spec.Names.Plural+"."+c.Spec.Group), ResourceVersion: "1"}
	if v, ok := c.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation]; ok {
		in.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: v}
	}
	return in, nil
}

// nameLater leaves the name to validate, which knows what it must be made of.
func nameLater(string, bool) []string { return nil }

// warnings tell of formats nobody knows and of sets that apply cannot merge,
// where an update brings them.
func warnings(next, prev *definition) []string {
	in, err := internal(next)
	if err != nil {
		return nil
	}
	var before []string
	if prev != nil {
		if old, err := internal(prev); err == nil {
			before = doubts(&old.Spec)
		}
	}
	return slices.DeleteFunc(doubts(&in.Spec), func(w string) bool { return slices.Contains(before, w) })
}

func doubts(s *apiextensions.CustomResourceDefinitionSpec) []string {
	var formats, sets []string
	look := func(p *apiextensions.JSONSchemaProps) bool {
		if p.Format != "" {
			one := &spec.Schema{SchemaProps: spec.SchemaProps{Format: p.Format, Type: []string{p.Type}}}
			for _, f := range schemavalidation.GetUnrecognizedFormats(one, environment.DefaultCompatibilityVersion()) {
				formats = append(formats, fmt.Sprintf("unrecognized format %q", f))
			}
		}
		if p.XListType != nil && *p.XListType == "set" && p.Items != nil && p.Items.Schema != nil {
			if t := p.Items.Schema.Type; t == "object" || t == "array" {
				sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
		return false
	}
	if s.Validation != nil && s.Validation.OpenAPIV3Schema != nil {
		validation.SchemaHas(s.Validation.OpenAPIV3Schema, look)
	}
	for _, v := range s.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			validation.SchemaHas(v.Schema.OpenAPIV3Schema, look)
		}
	}
	slices.Sort(sets)
	return slices.Concat(formats, slices.Compact(sets))
}

package crd

import (
	"maps"
	"slices"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
)

// The library's quantity() is busy without bound with an immense exponent, and
// nothing can interrupt it: objects that hold one are not shown to such rules.

// readsQuantities says whether a rule anywhere in a schema may read a quantity.
func readsQuantities(s *structuralschema.Structural) bool {
	if s == nil {
		return false
	}
	for _, rule := range s.XValidations {
		if strings.Contains(rule.Rule, "uantity") || strings.Contains(rule.MessageExpression, "uantity") {
			return true
		}
	}
	if readsQuantities(s.Items) || s.AdditionalProperties != nil && readsQuantities(s.AdditionalProperties.Structural) {
		return true
	}
	for name := range s.Properties {
		if p := s.Properties[name]; readsQuantities(&p) {
			return true
		}
	}
	return false
}

// immense finds a text that holds a number of such an exponent.
func immense(at *field.Path, v any) (*field.Path, string) {
	switch v := v.(type) {
	case string:
		if api.Immense([]byte(v)) {
			return at, v
		}
	case []any:
		for i := range v {
			if at, text := immense(at.Index(i), v[i]); text != "" {
				return at, text
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if at, text := immense(at.Child(k), v[k]); text != "" {
				return at, text
			}
		}
	}
	return nil, ""
}

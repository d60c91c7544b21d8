package crd

import (
	"math"
	"reflect"
	"regexp"
	"unicode/utf8"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// check says that a value surely obeys its schema. False means that the library
// must be asked, which finds the words for what is wrong, and knows the rarer
// rules: unions, formats, enumerations of objects.
type check func(v any) bool

// surely turns a schema into a check. Most objects are valid, and most of the
// library's time goes into preparing to say why one is not.
func surely(s *structuralschema.Structural) check {
	if s == nil {
		return func(any) bool { return true }
	}
	rare := false
	if v := s.ValueValidation; v != nil {
		rare = len(v.AllOf) > 0 || len(v.OneOf) > 0 || v.Not != nil || v.UniqueItems || v.MultipleOf != nil || len(v.AnyOf) > 0 && !plainUnion(s)
		rare = rare || v.Format != "" && !(s.Type == "integer" && (v.Format == "int32" || v.Format == "int64"))
	}
	if rare {
		return func(any) bool { return false }
	}
	var of check
	switch {
	case s.XIntOrString:
		of = eitherCheck(s)
	case s.Type == "string":
		of = stringCheck(s)
	case s.Type == "integer", s.Type == "number":
		of = numberCheck(s)
	case s.Type == "boolean":
		of = func(v any) bool { _, ok := v.(bool); return ok && noEnum(s) }
	case s.Type == "array":
		of = listCheck(s)
	case s.Type == "object":
		of = mapCheck(s)
	case s.Type == "" && s.XPreserveUnknownFields && (s.ValueValidation == nil || reflect.DeepEqual(*s.ValueValidation, structuralschema.ValueValidation{})):
		of = func(any) bool { return true }
	default:
		return func(any) bool { return false }
	}
	nullable := s.Nullable && noEnum(s)
	return func(v any) bool {
		if v == nil {
			return nullable
		}
		return of(v)
	}
}

func noEnum(s *structuralschema.Structural) bool {
	return s.ValueValidation == nil || len(s.ValueValidation.Enum) == 0
}

// plainUnion is the way to write that a value is an integer or a string.
func plainUnion(s *structuralschema.Structural) bool {
	if !s.XIntOrString {
		return false
	}
	for _, n := range s.ValueValidation.AnyOf {
		v := n.ValueValidation
		bare := v.Format == "" && v.Pattern == "" && v.Maximum == nil && v.Minimum == nil && v.MaxLength == nil && v.MinLength == nil && len(v.Enum) == 0 &&
			len(v.Required) == 0 && len(v.AllOf) == 0 && len(v.AnyOf) == 0 && len(v.OneOf) == 0 && v.Not == nil && v.MultipleOf == nil
		if !bare || n.ForbiddenGenerics.Type != "integer" && n.ForbiddenGenerics.Type != "string" {
			return false
		}
	}
	return true
}

func eitherCheck(s *structuralschema.Structural) check {
	text, number := stringCheck(s), numberCheck(s)
	return func(v any) bool {
		switch v.(type) {
		case string:
			return text(v)
		case int64:
			return number(v)
		}
		return false
	}
}

func stringCheck(s *structuralschema.Structural) check {
	v := s.ValueValidation
	if v == nil {
		v = &structuralschema.ValueValidation{}
	}
	var pattern *regexp.Regexp
	if v.Pattern != "" {
		var err error
		if pattern, err = regexp.Compile(v.Pattern); err != nil {
			return func(any) bool { return false }
		}
	}
	var enum map[string]bool
	for _, e := range v.Enum {
		one, ok := e.Object.(string)
		if !ok {
			return func(any) bool { return false }
		}
		if enum == nil {
			enum = map[string]bool{}
		}
		enum[one] = true
	}
	bounded := v.MaxLength != nil || v.MinLength != nil
	return func(x any) bool {
		t, ok := x.(string)
		if !ok || enum != nil && !enum[t] || pattern != nil && !pattern.MatchString(t) {
			return false
		}
		if !bounded {
			return true
		}
		n := int64(utf8.RuneCountInString(t))
		return (v.MaxLength == nil || n <= *v.MaxLength) && (v.MinLength == nil || n >= *v.MinLength)
	}
}

func numberCheck(s *structuralschema.Structural) check {
	v := s.ValueValidation
	if v == nil {
		v = &structuralschema.ValueValidation{}
	}
	low, high := math.Inf(-1), math.Inf(1)
	if v.Minimum != nil {
		low = *v.Minimum
	}
	if v.Maximum != nil {
		high = *v.Maximum
	}
	if v.Format == "int32" {
		low, high = max(low, math.MinInt32), min(high, math.MaxInt32)
	}
	odd := len(v.Enum) > 0 || v.ExclusiveMinimum || v.ExclusiveMaximum
	return func(x any) bool {
		if odd {
			return false
		}
		var n float64
		switch t := x.(type) {
		case int64:
			if n = float64(t); t > 1<<53 || t < -1<<53 {
				return math.IsInf(low, -1) && math.IsInf(high, 1)
			}
		case float64:
			if s.Type != "number" {
				return false
			}
			n = t
		default:
			return false
		}
		return n >= low && n <= high
	}
}

func listCheck(s *structuralschema.Structural) check {
	v := s.ValueValidation
	if v == nil {
		v = &structuralschema.ValueValidation{}
	}
	item := surely(s.Items)
	if len(v.Enum) > 0 {
		return func(any) bool { return false }
	}
	return func(x any) bool {
		list, ok := x.([]any)
		n := int64(len(list))
		if !ok || v.MaxItems != nil && n > *v.MaxItems || v.MinItems != nil && n < *v.MinItems {
			return false
		}
		for _, e := range list {
			if !item(e) {
				return false
			}
		}
		return true
	}
}

func mapCheck(s *structuralschema.Structural) check {
	v := s.ValueValidation
	if v == nil {
		v = &structuralschema.ValueValidation{}
	}
	if len(v.Enum) > 0 || s.XEmbeddedResource {
		return func(any) bool { return false }
	}
	props := make(map[string]check, len(s.Properties))
	for name, p := range s.Properties {
		props[name] = surely(&p)
	}
	other := check(func(any) bool { return true })
	if s.AdditionalProperties != nil {
		if !s.AdditionalProperties.Bool && s.AdditionalProperties.Structural == nil {
			return func(any) bool { return false }
		}
		other = surely(s.AdditionalProperties.Structural)
	}
	return func(x any) bool {
		m, ok := x.(map[string]any)
		n := int64(len(m))
		if !ok || v.MaxProperties != nil && n > *v.MaxProperties || v.MinProperties != nil && n < *v.MinProperties {
			return false
		}
		for _, name := range v.Required {
			if _, ok := m[name]; !ok {
				return false
			}
		}
		for name, e := range m {
			p := props[name]
			if p == nil {
				p = other
			}
			if !p(e) {
				return false
			}
		}
		return true
	}
}

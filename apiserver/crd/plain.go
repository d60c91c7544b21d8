package crd

import (
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
)

// plainly is a version's schema compiled into checks that say, in one walk each
// and without allocating, that the library's functions would find nothing to do.
// Most objects have nothing to prune, nothing to fill in and nothing twice, and
// the library's walks copy a schema for each field they pass.
type plainly struct {
	trimmed  check // nothing is unknown, no null stands where none may, nothing is embedded; nil when never sure
	complete check // no default is missing; nil when there are none
	unique   check // nothing is twice in sets and maps; nil when there are none
	embedded bool  // there are resources inside of resources
}

func newPlainly(s *structuralschema.Structural, preserve bool) *plainly {
	p := &plainly{complete: completeCheck(s), unique: uniqueCheck(s), embedded: hasEmbedded(s)}
	if s != nil && !preserve && !p.embedded {
		p.trimmed = trimmedCheck(s, true)
	}
	return p
}

// isTrimmed says that coercing obj would change nothing outside its metadata.
func (p *plainly) isTrimmed(obj map[string]any) bool { return p.trimmed != nil && p.trimmed(obj) }

func (p *plainly) isComplete(obj map[string]any) bool { return p.complete == nil || p.complete(obj) }

func (p *plainly) isUnique(obj map[string]any) bool { return p.unique == nil || p.unique(obj) }

func hasEmbedded(s *structuralschema.Structural) bool {
	if s == nil {
		return false
	}
	if s.XEmbeddedResource || hasEmbedded(s.Items) || s.AdditionalProperties != nil && hasEmbedded(s.AdditionalProperties.Structural) {
		return true
	}
	for _, p := range s.Properties {
		if hasEmbedded(&p) {
			return true
		}
	}
	return false
}

func scalar(v any) bool {
	switch v.(type) {
	case string, int64, float64, bool:
		return true
	}
	return false
}

// trimmedCheck is of pruning and of dropping nulls. Where the schema is silent,
// only scalars are surely kept.
func trimmedCheck(s *structuralschema.Structural, root bool) check {
	if s == nil {
		return scalar
	}
	keeps, nullable := s.XPreserveUnknownFields, s.Nullable
	props := make(map[string]check, len(s.Properties))
	for name, p := range s.Properties {
		props[name] = trimmedCheck(&p, false)
	}
	if root {
		for _, name := range []string{"apiVersion", "kind", "metadata"} {
			props[name] = func(any) bool { return true } // the caller has looked at them
		}
	}
	var other, item check
	if s.AdditionalProperties != nil {
		other = trimmedCheck(s.AdditionalProperties.Structural, false)
	}
	if s.Items != nil {
		item = trimmedCheck(s.Items, false)
	} else if !keeps {
		item = scalar
	}
	return func(v any) bool {
		switch v := v.(type) {
		case nil:
			return nullable
		case map[string]any:
			for key, e := range v {
				of := props[key]
				if of == nil {
					of = other
				}
				if of == nil && !keeps || of != nil && !of(e) {
					return false
				}
			}
		case []any:
			for _, e := range v {
				if item != nil && !item(e) {
					return false
				}
			}
		}
		return true
	}
}

// completeCheck is of defaulting; nil when nothing at or below s has a default.
func completeCheck(s *structuralschema.Structural) check {
	if s == nil {
		return nil
	}
	var needed []string
	props := map[string]check{}
	for name, p := range s.Properties {
		if p.Default.Object != nil {
			needed = append(needed, name)
		}
		if c := completeCheck(&p); c != nil {
			props[name] = c
		}
	}
	var other check
	if s.AdditionalProperties != nil {
		other = completeCheck(s.AdditionalProperties.Structural)
	}
	item := completeCheck(s.Items)
	own := s.Default.Object != nil
	if !own && len(needed) == 0 && len(props) == 0 && other == nil && item == nil {
		return nil
	}
	nullable := s.Nullable
	return func(v any) bool {
		switch v := v.(type) {
		case nil:
			return nullable || !own
		case map[string]any:
			for _, name := range needed {
				if _, ok := v[name]; !ok {
					return false
				}
			}
			if other != nil {
				for key, e := range v {
					if _, known := s.Properties[key]; !known && !other(e) {
						return false
					}
				}
			}
			for name, c := range props {
				if e, ok := v[name]; ok && !c(e) {
					return false
				}
			}
		case []any:
			for _, e := range v {
				if item != nil && !item(e) {
					return false
				}
			}
		}
		return true
	}
}

// uniqueCheck is of lists that are sets or maps; nil when there are none.
func uniqueCheck(s *structuralschema.Structural) check {
	if s == nil {
		return nil
	}
	props := map[string]check{}
	for name, p := range s.Properties {
		if c := uniqueCheck(&p); c != nil {
			props[name] = c
		}
	}
	var other check
	if s.AdditionalProperties != nil {
		other = uniqueCheck(s.AdditionalProperties.Structural)
	}
	item, list := uniqueCheck(s.Items), listUnique(s)
	if len(props) == 0 && other == nil && item == nil && list == nil {
		return nil
	}
	return func(v any) bool {
		switch v := v.(type) {
		case map[string]any:
			for name, c := range props {
				if e, ok := v[name]; ok && !c(e) {
					return false
				}
			}
			if other != nil {
				for _, e := range v {
					if !other(e) {
						return false
					}
				}
			}
		case []any:
			if list != nil && !list(v) {
				return false
			}
			for _, e := range v {
				if item != nil && !item(e) {
					return false
				}
			}
		}
		return true
	}
}

// fewItems is up to how many items of a list are compared each with each.
const fewItems = 24

// listUnique compares the items of a list by what tells them apart.
func listUnique(s *structuralschema.Structural) func([]any) bool {
	if s.XListType == nil {
		return nil
	}
	switch {
	case *s.XListType == "set":
		return func(list []any) bool { return distinct(list, func(e any) (any, bool) { return e, scalar(e) }) }
	case *s.XListType == "map" && len(s.XListMapKeys) == 1:
		name := s.XListMapKeys[0]
		return func(list []any) bool {
			return distinct(list, func(e any) (any, bool) {
				m, _ := e.(map[string]any)
				return m[name], scalar(m[name])
			})
		}
	case *s.XListType == "map":
		return func(list []any) bool { return len(list) < 2 && (len(list) == 0 || hasKeys(list[0], s.XListMapKeys)) }
	}
	return nil
}

func hasKeys(item any, keys []string) bool {
	m, _ := item.(map[string]any)
	for _, key := range keys {
		if !scalar(m[key]) {
			return false
		}
	}
	return true
}

// distinct says that all items have an identity, each another.
func distinct(list []any, identity func(any) (any, bool)) bool {
	if len(list) > fewItems {
		seen := make(map[any]struct{}, len(list))
		for _, e := range list {
			id, ok := identity(e)
			if !ok {
				return false
			}
			seen[id] = struct{}{}
		}
		return len(seen) == len(list)
	}
	for i, e := range list {
		id, ok := identity(e)
		if !ok {
			return false
		}
		for _, f := range list[:i] {
			if other, _ := identity(f); other == id {
				return false
			}
		}
	}
	return true
}

// Plain says that obj is of this version and needs no coercion: decoding what it
// is encoded to would give the same.
func (k *kind) Plain(obj api.Object) bool {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok || !k.isNamed(u.Object) || !plain(u.Object["metadata"]) {
		return false
	}
	p, err := k.plainly()
	return err == nil && p.isTrimmed(u.Object)
}

// isNamed says that an object calls itself by the version's kind.
func (k *kind) isNamed(obj map[string]any) bool {
	return obj["kind"] == k.info.Kind && obj["apiVersion"] == k.apiVersion
}

// readPlain decodes the common case; false when it is not that.
func (k *kind) readPlain(data []byte) (*unstructured.Unstructured, bool) {
	doc, ok := api.ReadLoose(data)
	if !ok {
		return nil, false
	}
	if meta, ok := doc["metadata"].(map[string]any); ok {
		if at, ok := meta["creationTimestamp"]; ok && at == nil { // as Go clients write the time of what is not made yet
			delete(meta, "creationTimestamp")
		}
	}
	u := &unstructured.Unstructured{Object: doc}
	return u, k.Plain(u)
}

// loadPlain decodes the common case of a stored value.
func (k *kind) loadPlain(value []byte) (*unstructured.Unstructured, bool) {
	u, ok := k.readPlain(value)
	return u, ok && u.GetGeneration() != 0
}

package crd

import (
	"crypto/sha256"
	"encoding/json"
	"hash"
	"io"
	"slices"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
)

// Shape implements resource.Custom: it names which fields an object has, for
// objects of one shape have the same fields owned by whoever creates them.
func (k *kind) Shape(obj api.Object) (sum [sha256.Size]byte, ok bool) {
	u, ok := obj.(*unstructured.Unstructured)
	s, err := k.schema()
	if !ok || err != nil {
		return sum, false
	}
	h := shaper{sha256.New()}
	io.WriteString(h, k.f.fingerprint()+"/"+k.v.Name)
	for _, key := range sortedKeys(u.Object) {
		v := u.Object[key]
		io.WriteString(h, "\n"+key)
		switch {
		case key == "metadata":
			h.metadata(v)
		case s == nil:
			h.value(v, nil)
		default:
			h.value(v, child(s, key))
		}
	}
	h.Sum(sum[:0])
	return sum, true
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func child(s *structuralschema.Structural, key string) *structuralschema.Structural {
	if p, ok := s.Properties[key]; ok {
		return &p
	}
	if s.AdditionalProperties != nil {
		return s.AdditionalProperties.Structural
	}
	return nil
}

type shaper struct{ hash.Hash }

// whole takes in a value as it is.
func (h shaper) whole(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		data = []byte("?")
	}
	h.Write(data)
}

// metadata takes in what may be owned, the name and the like left out.
func (h shaper) metadata(v any) {
	m, ok := v.(map[string]any)
	if !ok {
		h.whole(v)
		return
	}
	for _, key := range sortedKeys(m) {
		switch key {
		case "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "selfLink", "managedFields":
		case "labels", "annotations":
			io.WriteString(h, key)
			h.value(m[key], nil)
		default:
			io.WriteString(h, key)
			h.whole(m[key])
		}
	}
}

// value takes in the fields below v; s is nil where nothing is known.
func (h shaper) value(v any, s *structuralschema.Structural) {
	switch v := v.(type) {
	case map[string]any:
		switch {
		case s != nil && s.XEmbeddedResource:
			h.whole(v)
		case s != nil && s.XMapType != nil && *s.XMapType == "atomic":
			io.WriteString(h, "a")
		default:
			io.WriteString(h, "{")
			for _, key := range sortedKeys(v) {
				h.whole(key)
				if s == nil {
					h.value(v[key], nil)
				} else {
					h.value(v[key], child(s, key))
				}
			}
			io.WriteString(h, "}")
		}
	case []any:
		h.list(v, s)
	case nil:
		io.WriteString(h, "n")
	default:
		io.WriteString(h, "s")
	}
}

func (h shaper) list(v []any, s *structuralschema.Structural) {
	if s == nil || s.XListType == nil || *s.XListType == "atomic" {
		io.WriteString(h, "l")
		return
	}
	io.WriteString(h, "[")
	for _, item := range v {
		m, ok := item.(map[string]any)
		if !ok || *s.XListType != "map" {
			h.whole(item)
			continue
		}
		for _, key := range s.XListMapKeys {
			h.whole(m[key])
		}
		h.value(item, s.Items)
	}
	io.WriteString(h, "]")
}

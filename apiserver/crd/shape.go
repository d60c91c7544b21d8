package crd

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
)

// form is what the naming of fields needs of a schema, found once: looking it up
// in the schema itself copies one for each field.
type form struct {
	props          map[string]*form
	other, items   *form
	keys           []string // of a list that is a map
	set            bool
	embedded, atom bool // of resources and of maps that are owned as one
	list           bool // its items are owned one by one
	keeps          bool // fields that nobody knows
	kind           string
}

func newForm(s *structuralschema.Structural) *form {
	if s == nil {
		return nil
	}
	f := &form{props: make(map[string]*form, len(s.Properties)), items: newForm(s.Items), embedded: s.XEmbeddedResource, keeps: s.XPreserveUnknownFields, kind: s.Type}
	f.atom = s.XMapType != nil && *s.XMapType == "atomic"
	if s.XListType != nil && *s.XListType != "atomic" {
		f.list, f.set = true, *s.XListType == "set"
		if *s.XListType == "map" {
			f.keys = slices.Sorted(slices.Values(s.XListMapKeys))
		}
	}
	for name, p := range s.Properties {
		f.props[name] = newForm(&p)
	}
	if s.AdditionalProperties != nil {
		f.other = newForm(s.AdditionalProperties.Structural)
	}
	return f
}

func (f *form) child(key string) *form {
	if f == nil {
		return nil
	}
	if p, ok := f.props[key]; ok {
		return p
	}
	return f.other
}

// Shape implements resource.Custom: it names which fields an object has, for
// objects of one shape have the same fields owned by whoever creates them.
func (k *kind) Shape(obj api.Object) (sum [sha256.Size]byte, ok bool) {
	u, ok := obj.(*unstructured.Unstructured)
	top, err := k.form()
	if !ok || err != nil {
		return sum, false
	}
	var room [4096]byte
	var names [64]string
	h := shaper{to: room[:0], names: names[:0]}
	h.text(k.f.fingerprint())
	h.text(k.v.Name)
	for _, key := range h.sorted(u.Object) {
		h.text(key)
		if key == "metadata" {
			h.metadata(u.Object[key])
		} else {
			h.value(u.Object[key], top.child(key))
		}
	}
	if h.odd {
		return sum, false
	}
	return sha256.Sum256(h.to), true
}

// shaper writes down a shape.
type shaper struct {
	to    []byte
	names []string // a stack of sorted keys
	odd   bool     // something could not be written down
}

// sorted are a map's keys, valid as long as the caller needs them.
func (h *shaper) sorted(m map[string]any) []string {
	base := len(h.names)
	for key := range m {
		h.names = append(h.names, key)
	}
	keys := h.names[base:len(h.names):len(h.names)]
	slices.Sort(keys)
	return keys
}

func (h *shaper) text(s string) {
	h.to = binary.AppendUvarint(h.to, uint64(len(s)))
	h.to = append(h.to, s...)
}

func (h *shaper) mark(c byte) { h.to = append(h.to, c) }

// whole takes in a value as it is.
func (h *shaper) whole(v any) {
	to, err := api.AppendLoose(h.to, v)
	h.to, h.odd = to, h.odd || err != nil
	h.mark('\n')
}

// metadata takes in what may be owned, the name and the like left out.
func (h *shaper) metadata(v any) {
	m, ok := v.(map[string]any)
	if !ok {
		h.whole(v)
		return
	}
	for _, key := range h.sorted(m) {
		switch key {
		case "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "selfLink", "managedFields":
		case "labels", "annotations":
			h.text(key)
			h.value(m[key], nil)
		default:
			h.text(key)
			h.whole(m[key])
		}
	}
	h.mark('}')
}

// value takes in the fields below v; f is nil where nothing is known.
func (h *shaper) value(v any, f *form) {
	switch v := v.(type) {
	case map[string]any:
		switch {
		case f != nil && f.embedded:
			h.whole(v)
		case f != nil && f.atom:
			h.mark('a')
		default:
			h.mark('{')
			for _, key := range h.sorted(v) {
				h.text(key)
				h.value(v[key], f.child(key))
			}
			h.mark('}')
		}
	case []any:
		h.list(v, f)
	case nil:
		h.mark('n')
	default:
		h.mark('s')
	}
}

func (h *shaper) list(v []any, f *form) {
	if f == nil || !f.list {
		h.mark('l')
		return
	}
	h.mark('[')
	for _, item := range v {
		m, ok := item.(map[string]any)
		if !ok || f.set {
			h.whole(item)
			continue
		}
		for _, key := range f.keys {
			h.whole(m[key])
		}
		h.value(item, f.items)
	}
	h.mark(']')
}

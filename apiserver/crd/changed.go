package crd

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
)

// maxChanged bounds how many changes are followed one by one.
const maxChanged = 32

// Changed names the fields whose values differ between two objects, each by its
// path in managedFields: ["f:spec", "f:replicas"]. It is for the commonest
// changes only, those of values where there were values before; ok is false when
// a field came or went, and where the schema does not say how it is owned.
func (k *kind) Changed(before, now api.Object) (paths [][]string, ok bool) {
	a, ok := before.(*unstructured.Unstructured)
	b, isLoose := now.(*unstructured.Unstructured)
	top, err := k.form()
	if !ok || !isLoose || err != nil || top == nil {
		return nil, false
	}
	d := differ{}
	for key, v := range b.Object {
		w, had := a.Object[key]
		switch {
		case !had:
			return nil, false
		case key == "apiVersion" || key == "kind":
			ok = v == w
		case key == "metadata":
			ok = d.metadata(w, v)
		default:
			ok = d.at("f:"+key, w, v, top.child(key))
		}
		if !ok {
			return nil, false
		}
	}
	return d.paths, len(a.Object) == len(b.Object)
}

type differ struct {
	path  []string
	paths [][]string
}

func (d *differ) changed() bool {
	d.paths = append(d.paths, append([]string(nil), d.path...))
	return len(d.paths) <= maxChanged
}

func (d *differ) at(element string, a, b any, f *form) bool {
	d.path = append(d.path, element)
	ok := d.value(a, b, f)
	d.path = d.path[:len(d.path)-1]
	return ok
}

func (d *differ) value(a, b any, f *form) bool {
	if scalar(a) && scalar(b) {
		return a == b || f != nil && !f.keeps && d.changed()
	}
	if f == nil || f.keeps || f.embedded {
		return api.SameLoose(a, b)
	}
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || f.kind != "object" {
			return false
		}
		if f.atom {
			return api.SameLoose(a, b) || len(a) > 0 && len(b) > 0 && d.changed()
		}
		return d.maps(a, b, f)
	case []any:
		b, ok := b.([]any)
		if !ok || f.kind != "array" {
			return false
		}
		return d.lists(a, b, f)
	}
	return a == nil && b == nil
}

func (d *differ) maps(a, b map[string]any, f *form) bool {
	if len(a) != len(b) {
		return false
	}
	for key, v := range b {
		w, ok := a[key]
		if !ok || !d.at("f:"+key, w, v, f.child(key)) {
			return false
		}
	}
	return true
}

func (d *differ) lists(a, b []any, f *form) bool {
	if !f.list {
		return api.SameLoose(a, b) || len(a) > 0 && len(b) > 0 && d.changed()
	}
	if f.set || len(a) != len(b) {
		return api.SameLoose(a, b)
	}
	for i := range a {
		if api.SameLoose(a[i], b[i]) {
			continue
		}
		x, isMap := a[i].(map[string]any)
		y, isMap2 := b[i].(map[string]any)
		if !isMap || !isMap2 || f.items == nil || f.items.keeps || f.items.embedded || f.items.atom {
			return false
		}
		element, ok := itemName(x, y, f.keys)
		if !ok {
			return false
		}
		d.path = append(d.path, element)
		ok = d.maps(x, y, f.items)
		d.path = d.path[:len(d.path)-1]
		if !ok {
			return false
		}
	}
	return true
}

// itemName is an item's name in managedFields, `k:{"name":"x"}`, if both have the
// same keys, and such as are written the same by everybody.
func itemName(a, b map[string]any, keys []string) (string, bool) {
	id := make(map[string]any, len(keys))
	for _, key := range keys {
		switch v := a[key].(type) {
		case string:
			for i := range len(v) {
				if c := v[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
					return "", false
				}
			}
		case int64, bool:
		default:
			return "", false
		}
		if a[key] != b[key] {
			return "", false
		}
		id[key] = a[key]
	}
	name, err := api.AppendLoose([]byte("k:"), id)
	return string(name), err == nil
}

// metadata compares what may be owned; labels and annotations are owned one by one.
func (d *differ) metadata(before, now any) bool {
	a, ok := before.(map[string]any)
	b, ok2 := now.(map[string]any)
	if !ok || !ok2 {
		return false
	}
	d.path = append(d.path, "f:metadata")
	defer func() { d.path = d.path[:0] }()
	for key, v := range b {
		w, had := a[key]
		switch key {
		case "managedFields", "resourceVersion", "generation":
			continue
		case "labels", "annotations":
			d.path = append(d.path, "f:"+key)
			x, isMap := w.(map[string]any)
			y, isMap2 := v.(map[string]any)
			ok = isMap && isMap2 && d.maps(x, y, labelForm)
			d.path = d.path[:len(d.path)-1]
		default:
			ok = had && api.SameLoose(v, w)
		}
		if !ok {
			return false
		}
	}
	for key := range a {
		if _, ok := b[key]; !ok && key != "managedFields" && key != "resourceVersion" && key != "generation" {
			return false
		}
	}
	return true
}

// labelForm is the form of labels and annotations.
var labelForm = &form{kind: "object", other: &form{kind: "string"}}

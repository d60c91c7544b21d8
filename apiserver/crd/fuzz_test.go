package crd

import (
	"encoding/json"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// familyOf makes the kinds of a schema.
func familyOf(t testing.TB, schema string) (*family, error) {
	t.Helper()
	d := accepted(crdOf("foos", "Foo"))
	v := &d.Spec.Versions[0]
	v.Schema = &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{}}
	if err := json.Unmarshal([]byte(schema), v.Schema.OpenAPIV3Schema); err != nil {
		return nil, err
	}
	v.Subresources = &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
	return newFamily(t.Context(), &shared{met: newMetrics(nil)}, d, d.Status.AcceptedNames)
}

// exercise sends an object through everything a create and an update do.
func exercise(t testing.TB, k *kind, data []byte) {
	obj, _, err := k.Decode(api.FormatJSON, data, true)
	if obj == nil {
		if err == nil {
			t.Fatal("neither object nor error")
		}
		return
	}
	if obj.GetObjectKind().GroupVersionKind() != k.info.GroupVersionKind {
		return // refused before anything is done with it
	}
	k.Default(obj)
	prev := obj.DeepCopyObject().(api.Object)
	k.Prepare(&resource.Request{}, obj, prev)
	k.Validate(obj, nil)
	k.Validate(obj, prev)
	if r, err := k.rules(); err == nil && r.surely(content(obj)) {
		if errs := schemavalidation.ValidateCustomResource(nil, content(obj), r.whole); len(errs) > 0 {
			t.Fatalf("taken for valid: %v\n%s", errs, data)
		}
	}
	k.Cells(obj, prev.GetCreationTimestamp().Time)
	if sum, ok := k.Shape(obj); ok {
		if again, _ := k.Shape(prev.DeepCopyObject().(api.Object)); again != sum && obj.GetName() == prev.GetName() {
			k.Prepare(&resource.Request{}, prev, prev)
		}
	}
	stored, err := k.Save(obj)
	if err != nil {
		return
	}
	if _, err := k.Load([][]byte{stored}); err != nil {
		t.Fatalf("what was stored cannot be read: %v\n%s", err, stored)
	}
}

const fuzzedSchema = `{"type":"object","properties":{"spec":{"type":"object","properties":{
	"a":{"type":"string","default":"x","maxLength":5,"x-kubernetes-validations":[{"rule":"self != 'y'"}]},
	"b":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"}}}},
	"c":{"x-kubernetes-int-or-string":true},"d":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"x-kubernetes-embedded-resource":true},
	"e":{"type":"object","additionalProperties":{"type":"integer"}},"f":{"type":"string","format":"date-time","nullable":true}}}}}`

// FuzzObjects: whatever a user sends is refused or comes back from the store.
func FuzzObjects(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"n","labels":{"a":"b"}},"spec":{"a":"b","b":[{"k":"1"}],"c":"x","e":{"n":1}}}`,
		`{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"creationTimestamp":null,"finalizers":[]},"spec":{"d":{"apiVersion":"v1","kind":"Pod","metadata":{"x":1}}}}`,
		`{"apiVersion":"example.com/v1","kind":"Foo","metadata":7}`, `{"apiVersion":"example.com/v1","kind":"Foo","spec":[]}`, `[]`, `{"kind":1}`, ``,
	} {
		f.Add([]byte(seed))
	}
	fam, err := familyOf(f, fuzzedSchema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) { exercise(t, fam.kinds["v1"], data) })
}

// A rule that reads quantities is not kept busy by an exponent that has no end.
func TestRulesReadNoImmenseQuantity(t *testing.T) {
	fam, err := familyOf(t, `{"type":"object","properties":{"spec":{"type":"object","properties":{"sizes":{"type":"array","maxItems":10,"items":{"type":"string","maxLength":50,"x-kubernetes-validations":[{"rule":"quantity(self).isGreaterThan(quantity('1'))"}]}}}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for sizes, want := range map[string]string{
		`["2","3Gi","1e-3"]`:     `spec.sizes[2]: Invalid value: "1e-3": failed rule: quantity(self).isGreaterThan(quantity('1'))`,
		`["2","1e-99999999999"]`: `spec.sizes[1]: Invalid value: "1e-99999999999": validation rules read quantities, of which the exponent must not be below -999`,
		`["2","3e3"]`:            "",
	} {
		k := fam.kinds["v1"]
		obj, _, err := k.Decode(api.FormatJSON, []byte(`{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"n"},"spec":{"sizes":`+sizes+`}}`), false)
		if err != nil {
			t.Fatal(err)
		}
		if errs := k.Validate(obj, nil); want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || errs[0].Error() != want) {
			t.Errorf("%s: %v", sizes, errs)
		}
	}
}

// FuzzSchemas: whatever a definition says, no object brings the server down.
func FuzzSchemas(f *testing.F) {
	for _, seed := range []string{
		fuzzedSchema, `{}`, `{"type":"object","properties":{"metadata":{"type":"object"}}}`, `{"type":"array","items":{}}`,
		`{"type":"object","x-kubernetes-preserve-unknown-fields":true}`, `{"allOf":[{"not":{"required":["a"]}}]}`, `{"type":"string","pattern":"("}`,
		`{"type":"object","x-kubernetes-validations":[{"rule":"self.x == oldSelf.x"}]}`, `{"$ref":"#/x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, schema []byte) {
		fam, err := familyOf(t, string(schema))
		if err != nil {
			return
		}
		k := fam.kinds["v1"]
		exercise(t, k, []byte(`{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"n"},"spec":{"a":"b","x":[1,{"k":null}]},"x":1}`))
		k.Definition(true)
		k.Definition(false)
	})
}

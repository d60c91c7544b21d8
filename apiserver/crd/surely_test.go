package crd

import (
	"fmt"
	"math/rand/v2"
	"testing"

	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
)

const judgedSchema = `{"type":"object","required":["s"],"properties":{
	"s":{"type":"string","minLength":1,"maxLength":3,"pattern":"^[a-zé]*$"},"e":{"type":"string","enum":["a","b"]},"i":{"type":"integer","minimum":-2,"maximum":5},
	"n":{"type":"number","exclusiveMinimum":true,"minimum":0},"f":{"type":"integer","format":"int32"},"t":{"type":"string","format":"date-time"},"b":{"type":"boolean"},
	"l":{"type":"array","minItems":1,"maxItems":2,"items":{"type":"integer"}},"m":{"type":"object","maxProperties":1,"additionalProperties":{"type":"string"}},
	"o":{"type":"object","nullable":true,"required":["x"],"properties":{"x":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}],"pattern":"^[0-9]+%?$"}}},
	"p":{"x-kubernetes-preserve-unknown-fields":true},"u":{"type":"object","oneOf":[{"required":["a"]},{"required":["b"]}],"properties":{"a":{"type":"string"},"b":{"type":"string"}}}}}`

// Safety: what is taken for valid without asking the library, is.
func TestSurelySafety(t *testing.T) {
	f, err := familyOf(t, judgedSchema)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.kinds["v1"].rules()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	values := []any{
		"", "a", "b", "éé", "abcd", "A", "5%", "50", nil, true, int64(0), int64(5), int64(6), int64(-3), int64(1) << 40, 1.5, -1.0, 0.0,
		[]any{}, []any{int64(1)}, []any{"x"}, []any{int64(1), int64(2), int64(3)}, map[string]any{}, map[string]any{"x": int64(1)}, map[string]any{"x": "1%"},
		map[string]any{"x": "y"}, map[string]any{"a": "b"}, map[string]any{"a": "b", "c": "d"}, map[string]any{"a": int64(1)}, "2026-01-01T00:00:00Z",
	}
	sure := 0
	for range 4000 {
		obj := map[string]any{"apiVersion": "example.com/v1", "kind": "Foo", "s": "a"}
		for _, name := range []string{"s", "e", "i", "n", "f", "t", "b", "l", "m", "o", "p", "u"} {
			if rng.IntN(10) == 0 {
				obj[name] = values[rng.IntN(len(values))]
			}
		}
		errs := schemavalidation.ValidateCustomResource(nil, obj, r.whole)
		if r.surely(obj) {
			sure++
			if len(errs) > 0 {
				t.Fatalf("%v is taken for valid: %v", obj, errs)
			}
		}
	}
	if sure < 100 {
		t.Errorf("only %d objects were surely valid: the check does nothing", sure)
	}
}

// Liveness: ordinary values are recognised one by one.
func TestSurelyLiveness(t *testing.T) {
	f, err := familyOf(t, judgedSchema)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := f.kinds["v1"].rules()
	for _, v := range []map[string]any{
		{"s": "é"}, {"s": "a", "e": "b"}, {"s": "a", "i": int64(5)}, {"s": "a", "f": int64(7)}, {"s": "a", "b": true}, {"s": "a", "l": []any{int64(1)}},
		{"s": "a", "m": map[string]any{"k": "v"}}, {"s": "a", "o": nil}, {"s": "a", "o": map[string]any{"x": "5%"}}, {"s": "a", "o": map[string]any{"x": int64(5)}}, {"s": "a", "p": fmt.Sprint},
	} {
		if !r.surely(v) {
			t.Errorf("%v is not recognised", v)
		}
	}
}

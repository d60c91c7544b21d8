package crd

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	schemaobjectmeta "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
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

const trimmedSchema = `{"type":"object","properties":{
	"s":{"type":"string","default":"x"},"n":{"type":"string","nullable":true},"nd":{"type":"string","nullable":true,"default":"y"},
	"o":{"type":"object","properties":{"a":{"type":"string","default":"z"},"b":{"type":"object","nullable":true,"properties":{"c":{"type":"integer"}}}}},
	"m":{"type":"object","additionalProperties":{"type":"object","properties":{"a":{"type":"string","default":"q"}}}},
	"free":{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"known":{"type":"object","properties":{"a":{"type":"string"}}}}},
	"l":{"type":"array","items":{"type":"object","properties":{"k":{"type":"string"},"v":{"type":"string","default":"w"}},"required":["k"]},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"]},
	"set":{"type":"array","items":{"type":"string"},"x-kubernetes-list-type":"set"}}}`

// Safety: where the checks say that there is nothing to do, the library does nothing.
func TestPlainlySafety(t *testing.T) {
	f, err := familyOf(t, trimmedSchema)
	if err != nil {
		t.Fatal(err)
	}
	k := f.kinds["v1"]
	s, _ := k.schema()
	p, err := k.plainly()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	var random func(depth int) any
	random = func(depth int) any {
		scalars := []any{"x", "y", int64(1), 1.5, true, nil}
		switch n := rng.IntN(10); {
		case n < 3 && depth < 3:
			m := map[string]any{}
			for range rng.IntN(3) {
				m[[]string{"a", "b", "c", "k", "v", "known", "odd"}[rng.IntN(7)]] = random(depth + 1)
			}
			return m
		case n < 5 && depth < 3:
			l := []any{}
			for range rng.IntN(4) {
				l = append(l, random(depth+1))
			}
			return l
		}
		return scalars[rng.IntN(len(scalars))]
	}
	var trimmed, complete, unique int
	for range 20000 {
		obj := map[string]any{"apiVersion": "example.com/v1", "kind": "Foo", "metadata": map[string]any{"name": "x"}}
		for _, name := range []string{"s", "n", "nd", "o", "m", "free", "l", "set", "odd"} {
			if rng.IntN(6) == 0 {
				obj[name] = random(0)
			}
		}
		if rng.IntN(2) == 0 {
			obj["s"], obj["nd"] = "x", "y"
		}
		if p.isTrimmed(obj) {
			trimmed++
			after := runtime.DeepCopyJSON(obj)
			pruning.PruneWithOptions(after, s, true, structuralschema.UnknownFieldPathOptions{})
			defaulting.PruneNonNullableNullsWithoutDefaults(after, s)
			if err := schemaobjectmeta.Coerce(nil, after, s, false, true); err != nil || !reflect.DeepEqual(after, obj) {
				t.Fatalf("%v becomes %v, %v", obj, after, err)
			}
		}
		if p.isComplete(obj) {
			complete++
			after := runtime.DeepCopyJSON(obj)
			if defaulting.Default(after, s); !reflect.DeepEqual(after, obj) {
				t.Fatalf("%v becomes %v", obj, after)
			}
		}
		if p.isUnique(obj) {
			unique++
			if errs := listtype.ValidateListSetsAndMaps(nil, s, obj); len(errs) > 0 {
				t.Fatalf("%v: %v", obj, errs)
			}
		}
	}
	if trimmed < 1000 || complete < 1000 || unique < 1000 {
		t.Errorf("the checks do little: %d %d %d", trimmed, complete, unique)
	}
}

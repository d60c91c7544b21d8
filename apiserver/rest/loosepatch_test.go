package rest

import (
	"encoding/json"
	"reflect"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/sampan-dev/sampan/api"
)

// sameMerge holds mergeLoose against the library.
func sameMerge(t *testing.T, doc, patch []byte) {
	into, ok := api.ReadLoose(doc)
	with, ok2 := api.ReadLoose(patch)
	if !ok || !ok2 {
		return
	}
	out, err := jsonpatch.MergePatch(doc, patch)
	if err != nil {
		t.Fatalf("%s + %s: %v", doc, patch, err)
	}
	mergeLoose(into, with)
	var want, got any
	data, err := api.AppendLoose(nil, into)
	if err != nil || json.Unmarshal(out, &want) != nil || json.Unmarshal(data, &got) != nil {
		t.Fatalf("%s %s %v", data, out, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s + %s:\n got %s\nwant %s", doc, patch, data, out)
	}
	again, _ := api.ReadLoose(patch)
	if !reflect.DeepEqual(with, again) {
		t.Errorf("the patch was changed: %v", with)
	}
}

var merges = [][2]string{
	{`{"a":1,"b":{"c":2,"d":3}}`, `{"a":null,"b":{"c":null,"e":{"f":null,"g":1}}}`},
	{`{"a":1}`, `{"a":{"b":null,"c":1}}`},
	{`{"a":{"b":1}}`, `{"a":[{"x":null,"y":1},null]}`},
	{`{"a":null}`, `{"a":[{"x":null},null],"b":[[{"z":null}]]}`},
	{`{"a":[1,2]}`, `{"a":{"b":null},"c":"x"}`},
	{`{"a":{"b":1}}`, `{"a":"s"}`},
	{`{}`, `{"a":{"b":{"c":null}}}`},
}

func TestMergeLoose(t *testing.T) {
	for _, m := range merges {
		sameMerge(t, []byte(m[0]), []byte(m[1]))
	}
}

func FuzzMergeLoose(f *testing.F) {
	for _, m := range merges {
		f.Add([]byte(m[0]), []byte(m[1]))
	}
	f.Fuzz(func(t *testing.T, doc, patch []byte) { sameMerge(t, doc, patch) })
}

package api_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	kjson "sigs.k8s.io/json"

	"github.com/sampan-dev/sampan/api"
)

// looseCases are documents that are read without help, and those that are not.
var looseCases = map[string]bool{
	`{}`: true, ` { "a" : [ ] } `: true, `{"a":1,"b":-0,"c":1.5,"d":1e3,"e":-7E-2,"f":9223372036854775808,"g":9223372036854775807}`: true,
	`{"s":"x","t":"é\n\u00e9\u2028\ud83d\ude00\"\\\/","u":""}`: true, `{"l":[1,"a",null,true,false,{"x":{}}]}`: true, `{"":{"":""}}`: true,
	"{\"del\":\"\x7f\"}": true, `{"html":"<a href=\"b\">&amp;</a>"}`: true,

	``: false, `null`: false, `[]`: false, `"x"`: false, `{"a":1,"a":2}`: false, `{"a":01}`: false, `{"a":.5}`: false, `{"a":1.}`: false, `{"a":-}`: false, `{"a":1e}`: false,
	`{"a":1e999}`: false, `{"a":tru}`: false, `{"a" 1}`: false, `{"a":1,}`: false, `{,}`: false, `{"a":[1,]}`: false, `{"a":"`: false, `{"a":"\`: false, `{"a":"\x"}`: false,
	"{\"a\":\"\n\"}": false, "{\"a\":\"\xff\"}": false, "{\"\xff\":1}": false, "{\"a\":\"\xff\\n\"}": false, `{"a":1} x`: false, `{"a":+1}`: false, `{"a":NaN}`: false,
}

func TestReadLoose(t *testing.T) {
	for doc, plain := range looseCases {
		got, ok := api.ReadLoose([]byte(doc))
		if ok != plain {
			t.Errorf("%s: plain: %v", doc, ok)
		}
		if ok {
			sameReading(t, []byte(doc), got)
		}
	}
	deep := strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)
	if _, ok := api.ReadLoose([]byte(deep)); ok {
		t.Error("a document a thousand levels deep is plain")
	}
	if _, ok := api.ReadLoose([]byte(`{"a":"b"` + strings.Repeat(" ", 1<<16) + `}`)); ok {
		t.Error("64 KiB of air are kept for two letters")
	}
}

// sameReading holds what was read against what apimachinery's decoder reads.
func sameReading(t *testing.T, data []byte, got map[string]any) {
	t.Helper()
	var want map[string]any
	strict, err := kjson.UnmarshalStrict(data, &want)
	if err != nil || len(strict) > 0 {
		t.Fatalf("%s is read, but is %v %v", data, strict, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s\nis read as %#v\nand not as %#v", data, got, want)
	}
	sameWriting(t, want)
}

// sameWriting holds what is written against encoding/json.
func sameWriting(t *testing.T, v any) {
	t.Helper()
	want, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := api.AppendLoose(nil, v)
	if err != nil || string(got) != string(want) {
		t.Fatalf("written as %s, %v\n       not %s", got, err, want)
	}
}

func TestAppendLoose(t *testing.T) {
	sameWriting(t, map[string]any{
		"z": []any{}, "a": map[string]any{}, "nil": nil, "nilList": []any(nil), "nilMap": map[string]any(nil), "f": 1e21, "g": 1e-7, "h": 0.1, "i": int64(math.MinInt64),
		"é": "\x00\x1f\x7f<>&\u2028\u2029\xff\"\\/", "t": true, "<k>": "v", "int": 5, "deep": map[string]any{"b": map[string]any{"d": int64(1), "c": "x"}, "a": int64(2)},
	})
	many := map[string]any{}
	for i := range 200 {
		many[fmt.Sprint("key", i)] = map[string]any{fmt.Sprint("k", i%7): int64(i)}
	}
	sameWriting(t, many)
	if _, err := api.AppendLoose(nil, map[string]any{"a": math.NaN()}); err == nil {
		t.Error("NaN is written")
	}
}

func FuzzLoose(f *testing.F) {
	for doc := range looseCases {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, ok := api.ReadLoose(data); ok {
			sameReading(t, data, got)
		}
	})
}

func TestSameLoose(t *testing.T) {
	shared := map[string]any{"a": []any{int64(1), "x"}}
	values := []any{nil, "", "x", int64(1), 1.0, true, map[string]any(nil), map[string]any{}, []any(nil), []any{}, shared, []any{shared, nil},
		map[string]any{"a": []any{int64(1), "x"}}, map[string]any{"a": []any{int64(1), "y"}}, map[string]any{"b": []any{int64(1), "x"}}, 7, []string{"x"}, math.NaN()}
	for _, a := range values {
		for _, b := range values {
			if got, want := api.SameLoose(a, b), reflect.DeepEqual(a, b); got != want {
				t.Errorf("%#v and %#v: same %v, want %v", a, b, got, want)
			}
		}
	}
}

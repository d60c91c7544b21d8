package aggregate

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
)

const ownV2 = `{"swagger":"2.0","info":{"title":"K","version":"1"},"paths":{"/apis/apps/v1/":{}},
	"definitions":{"Meta":{"type":"object","description":"ours"},"Same":{"type":"string","description":"x"}}}`

const theirsV2 = `{"swagger":"2.0","paths":{
	"/apis/wardle.example.com/v1alpha1/flunders":{"get":{"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/Flunder"}}}}},
	"/apis/":{"get":{"responses":{"200":{"description":"not theirs to say"}}}}},
	"definitions":{"Flunder":{"type":"object","properties":{"m":{"$ref":"#/definitions/Meta"},"s":{"$ref":"#/definitions/Same"}}},
	"Meta":{"type":"object","description":"theirs"},"Same":{"description":"x","type":"string"},"Unused":{"type":"string"}}}`

// TestMergeV2: what they refer to comes along, under another name where ours differs.
func TestMergeV2(t *testing.T) {
	body, err := mergeV2([]byte(ownV2), []theirV2{{"/apis/wardle.example.com/v1alpha1/", []byte(theirsV2)}, {"/apis/bad/v1/", []byte("not JSON")}})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Info        map[string]string
		Paths       map[string]json.RawMessage
		Definitions map[string]json.RawMessage
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Paths) != 2 || doc.Paths["/apis/wardle.example.com/v1alpha1/flunders"] == nil || doc.Info["title"] != "K" {
		t.Errorf("paths %v, info %v", doc.Paths, doc.Info)
	}
	var names []string
	for n := range doc.Definitions {
		names = append(names, n)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"Flunder", "Meta", "Meta_v2", "Same"}) {
		t.Errorf("definitions %v", names)
	}
	if f := string(doc.Definitions["Flunder"]); !strings.Contains(f, `#/definitions/Meta_v2"`) || !strings.Contains(f, `#/definitions/Same"`) {
		t.Errorf("flunder %s", f)
	}
}

// TestOpenAPI asks for the documents of a server with another behind it.
func TestOpenAPI(t *testing.T) {
	w := newWorld(t, nil)
	w.schemas.Store(true)
	w.up()
	own := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/openapi/v2":
			io.WriteString(rw, ownV2)
		case "/openapi/v3":
			io.WriteString(rw, `{"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=A"}}}`)
		default:
			io.WriteString(rw, "own "+r.URL.Path)
		}
	})
	get := func(path string, header http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		if header != nil {
			r.Header = header
		}
		rec := httptest.NewRecorder()
		w.a.OpenAPI(own).ServeHTTP(rec, r)
		return rec
	}
	root := get("/openapi/v3", nil)
	for _, want := range []string{`"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=A"}`, `"apis/wardle.example.com/v1alpha1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1alpha1?hash=B"}`} {
		if !strings.Contains(root.Body.String(), want) {
			t.Errorf("root %s lacks %s", root.Body, want)
		}
	}
	if strings.Contains(root.Body.String(), "not-asked-for") {
		t.Error("a group that no APIService names is listed")
	}
	if got := get("/openapi/v3", http.Header{"If-None-Match": {root.Header().Get("Etag")}}); got.Code != http.StatusNotModified {
		t.Errorf("with its tag: %d", got.Code)
	}
	if got := get("/openapi/v3/apis/wardle.example.com/v1alpha1?hash=OLD", nil).Body.String(); got != "schema for system:aggregator with " {
		t.Errorf("theirs: %q", got)
	}
	if got := get("/openapi/v3/api/v1", nil).Body.String(); got != "own /openapi/v3/api/v1" {
		t.Errorf("ours: %q", got)
	}
	if got := get("/openapi/v2", nil); !strings.Contains(got.Body.String(), "Meta_v2") {
		t.Errorf("v2: %s", got.Body)
	}
	got := get("/openapi/v2", http.Header{"Accept": {protoV2}, "Accept-Encoding": {"gzip"}})
	z, err := gzip.NewReader(bytes.NewReader(got.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(z)
	doc := &openapi_v2.Document{}
	if err := proto.Unmarshal(data, doc); err != nil || len(doc.Paths.Path) != 2 || got.Header().Get("Content-Type") != protoV2 {
		t.Errorf("protobuf: %v %v %s", err, doc.GetPaths(), got.Header())
	}
}

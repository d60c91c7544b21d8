package openapi_test

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
)

const (
	oldProtoV2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	protoV3    = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	podName    = "io.k8s.api.core.v1.Pod"
)

func newHandler() *openapi.Handler {
	kinds := all.Kinds()
	return openapi.New(func() []resource.Kind { return kinds })
}

func get(t testing.TB, h http.Handler, url string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", url, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// index returns the v3 documents' links.
func index(t testing.TB, h http.Handler) map[string]string {
	t.Helper()
	var root struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(get(t, h, "/openapi/v3").Body.Bytes(), &root); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range root.Paths {
		out[k] = v.ServerRelativeURL
	}
	return out
}

func TestV2IsAWholeDocument(t *testing.T) {
	h := newHandler()
	w := get(t, h, "/openapi/v2")
	doc := &spec.Swagger{}
	if err := doc.UnmarshalJSON(w.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	t.Logf("v2 JSON: %d bytes, %d definitions, %d paths", w.Body.Len(), len(doc.Definitions), len(doc.Paths.Paths))
	pod, ok := doc.Definitions[podName]
	if !ok || !strings.HasPrefix(pod.Description, "Pod is a collection of containers") {
		t.Errorf("pod: %q", pod.Description)
	}
	spec := doc.Definitions["io.k8s.api.core.v1.PodSpec"].Properties["containers"]
	if spec.Extensions["x-kubernetes-patch-merge-key"] != "name" || spec.Extensions["x-kubernetes-list-type"] != "map" || spec.Description == "" {
		t.Errorf("containers: %v", spec.Extensions)
	}
	if d := doc.Definitions["io.k8s.api.core.v1.ContainerPort"].Properties["protocol"].Default; d != nil {
		t.Errorf("v2 tells of the default value %v", d)
	}
	if _, ok := doc.Definitions["io.k8s.api.core.v1.LimitRangeItem"].Properties["default"]; !ok {
		t.Error("a field named default was taken for a default value")
	}
	for _, p := range []string{"/api/", "/apis/", "/apis/apps/", "/apis/apps/v1/", "/version/", "/api/v1/pods",
		"/api/v1/namespaces/{namespace}/pods/{name}/log", "/api/v1/namespaces/{namespace}/pods/{name}/exec",
		"/api/v1/namespaces/{namespace}/pods/{name}/binding", "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"} {
		if _, ok := doc.Paths.Paths[p]; !ok {
			t.Errorf("no path %s", p)
		}
	}
	exec := doc.Paths.Paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"].Get
	if exec == nil || !slices.ContainsFunc(exec.Parameters, func(p parameter) bool { return p.Name == "command" }) {
		t.Errorf("exec: %+v", exec)
	}

	w = get(t, h, "/openapi/v2", "Accept", oldProtoV2)
	if got, want := w.Header().Get("Content-Type"), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"; got != want {
		t.Errorf("content type %q, want %q", got, want)
	}
	pb := &openapi_v2.Document{}
	if err := proto.Unmarshal(w.Body.Bytes(), pb); err != nil {
		t.Fatal(err)
	}
	t.Logf("v2 protobuf: %d bytes", w.Body.Len())
	if len(pb.Definitions.AdditionalProperties) != len(doc.Definitions) || len(pb.Paths.Path) != len(doc.Paths.Paths) {
		t.Errorf("protobuf has %d definitions and %d paths", len(pb.Definitions.AdditionalProperties), len(pb.Paths.Path))
	}
}

type parameter = spec.Parameter

func TestV3DocumentsStandAlone(t *testing.T) {
	h := newHandler()
	links := index(t, h)
	for _, want := range []string{"api/v1", "apis/apps/v1", "apis/apps/v1beta1", "apis/apps", "apis", "api", "version"} {
		if links[want] == "" {
			t.Errorf("no document %s among %v", want, slices.Sorted(maps.Keys(links)))
		}
	}
	for key, link := range links {
		w := get(t, h, link)
		doc := &spec3.OpenAPI{}
		if err := doc.UnmarshalJSON(w.Body.Bytes()); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if w.Code != 200 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || len(doc.Paths.Paths) == 0 {
			t.Errorf("%s: %d %v", key, w.Code, w.Header())
		}
		for _, part := range strings.Split(w.Body.String(), `"#/components/schemas/`)[1:] {
			if name, _, _ := strings.Cut(part, `"`); doc.Components.Schemas[name] == nil {
				t.Fatalf("%s: refers to %s, which is not there", key, name)
			}
		}
		pb := &openapi_v3.Document{}
		if err := proto.Unmarshal(get(t, h, link, "Accept", protoV3).Body.Bytes(), pb); err != nil {
			t.Fatalf("%s: protobuf: %v", key, err)
		}
		if len(pb.Paths.Path) != len(doc.Paths.Paths) {
			t.Errorf("%s: protobuf has %d paths", key, len(pb.Paths.Path))
		}
	}
}

func TestV3SaysWhatKubectlAsks(t *testing.T) {
	h := newHandler()
	w := get(t, h, index(t, h)["api/v1"])
	doc := &spec3.OpenAPI{}
	if err := doc.UnmarshalJSON(w.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	t.Logf("v3 api/v1 JSON: %d bytes", w.Body.Len())
	pod := doc.Components.Schemas[podName]
	if pod == nil || !strings.HasPrefix(pod.Description, "Pod is a collection of containers") {
		t.Fatalf("pod: %+v", pod)
	}
	if d := doc.Components.Schemas["io.k8s.api.core.v1.ContainerPort"].Properties["protocol"].Default; d != "TCP" {
		t.Errorf("protocol's default is %v", d)
	}
	if s := doc.Components.Schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]; len(s.OneOf) != 2 || len(s.Type) != 0 {
		t.Errorf("IntOrString: %+v", s)
	}
	// Before it leaves validation to the server, kubectl looks for this.
	patch := doc.Paths.Paths["/api/v1/namespaces/{namespace}/pods/{name}"].Patch
	gvk, _ := json.Marshal(patch.Extensions["x-kubernetes-group-version-kind"])
	if string(gvk) != `{"group":"","kind":"Pod","version":"v1"}` || patch.Extensions["x-kubernetes-action"] != "patch" {
		t.Errorf("patch: %v", patch.Extensions)
	}
	for _, name := range []string{"dryRun", "fieldManager", "fieldValidation", "force"} {
		if !slices.ContainsFunc(patch.Parameters, func(p *spec3.Parameter) bool { return p.Name == name && p.In == "query" }) {
			t.Errorf("patch has no parameter %s", name)
		}
	}
}

// TestEveryFieldIsExplained: kubectl explain finds each field of each kind, its
// type and what it is for. Fields of which upstream's types say nothing are few.
func TestEveryFieldIsExplained(t *testing.T) {
	h := newHandler()
	fields, silent, kinds := 0, 0, 0
	for key, link := range index(t, h) {
		doc := &spec3.OpenAPI{}
		if err := doc.UnmarshalJSON(get(t, h, link).Body.Bytes()); err != nil || doc.Components == nil {
			continue
		}
		for name, s := range doc.Components.Schemas {
			if s.Extensions["x-kubernetes-group-version-kind"] != nil {
				kinds++
			}
			for field, p := range s.Properties {
				fields++
				typed := len(p.Type) > 0 || p.Ref.String() != "" || len(p.AllOf) > 0 || len(p.OneOf) > 0 || p.Extensions["x-kubernetes-preserve-unknown-fields"] != nil
				described := p.Description != "" || len(p.AllOf) == 1 && doc.Components.Schemas[strings.TrimPrefix(p.AllOf[0].Ref.String(), "#/components/schemas/")] != nil
				if !typed {
					t.Errorf("%s: %s.%s has no type", key, name, field)
				}
				if !described {
					silent++
				}
			}
		}
	}
	t.Logf("%d kinds, %d fields, %d without a word", kinds, fields, silent)
	if fields < 10000 || silent > fields/100 {
		t.Errorf("%d of %d fields are not explained", silent, fields)
	}
}

func TestOnlyWhatIsServedAppears(t *testing.T) {
	kinds := all.Kinds()[:1] // namespaces
	h := openapi.New(func() []resource.Kind { return kinds })
	if body := get(t, h, "/openapi/v2").Body.String(); strings.Contains(body, podName+`"`) || strings.Contains(body, "/pods") {
		t.Error("pods appear")
	}
	if w := get(t, h, "/openapi/v3/apis/apps/v1"); w.Code != http.StatusNotFound {
		t.Errorf("apps/v1: %d", w.Code)
	}
	before := index(t, h)["api/v1"]
	kinds = all.Kinds()
	if after := index(t, h)["api/v1"]; after == before {
		t.Error("the hash stays when the kinds change")
	}
	if !strings.Contains(get(t, h, "/openapi/v3/api/v1").Body.String(), podName+`"`) {
		t.Error("pods do not appear once they are served")
	}
}

func TestCaching(t *testing.T) {
	h := newHandler()
	w := get(t, h, "/openapi/v2")
	tag := w.Header().Get("Etag")
	if w = get(t, h, "/openapi/v2", "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("known document sent again: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w = get(t, h, "/openapi/v3/api/v1?hash=OLD"); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != index(t, h)["api/v1"] {
		t.Errorf("old hash: %d %s", w.Code, w.Header().Get("Location"))
	}
	if w = get(t, h, "/openapi/v2", "Accept", "text/html"); w.Code != http.StatusNotAcceptable {
		t.Errorf("text/html: %d", w.Code)
	}
	w = get(t, h, "/openapi/v2", "Accept-Encoding", "gzip")
	z, err := gzip.NewReader(w.Body)
	if err != nil || w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v %v", err, w.Header())
	}
	if data, err := io.ReadAll(z); err != nil || !json.Valid(data) {
		t.Errorf("gzip holds no document: %v", err)
	}
}

func TestIdleMemoryIsSmall(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	h := newHandler()
	before := heap()
	get(t, h, "/openapi/v2")
	get(t, h, "/openapi/v2", "Accept", oldProtoV2)
	get(t, h, index(t, h)["api/v1"])
	get(t, h, index(t, h)["apis/apps/v1"])
	after := heap()
	kept := int64(after) - int64(before)
	t.Logf("kept after four documents: %d KiB", kept>>10)
	if kept > 4<<20 {
		t.Errorf("%d bytes kept", kept)
	}
	runtime.KeepAlive(h)
}

func BenchmarkDocument(b *testing.B) {
	for _, c := range []struct{ name, url, accept string }{
		{"v2", "/openapi/v2", ""}, {"v2 protobuf", "/openapi/v2", oldProtoV2}, {"v3", "/openapi/v3/api/v1", ""}, {"v3 protobuf", "/openapi/v3/api/v1", protoV3},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				get(b, newHandler(), c.url, "Accept", c.accept, "Accept-Encoding", "gzip")
			}
		})
	}
}

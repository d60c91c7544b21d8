package apiserver_test

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/kit/monster"
)

// Whatever is sent, the server answers, and what it refuses it refuses with a
// Status.
func FuzzRequests(f *testing.F) {
	h := newServer(f, apiserver.Config{}).Handler()
	client{f, h}.do("POST", base+"configmaps", jsonType, configJSON("there", "v"))
	object := configJSON("c", "v")
	for _, s := range []struct{ method, uri, media, body string }{
		{"POST", base + "configmaps", jsonType, object}, {"POST", base + "configmaps", "application/yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: &a {name: n}\ndata: {<<: *a}"},
		{"POST", base + "configmaps", "application/vnd.kubernetes.protobuf", "k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x00"},
		{"PATCH", base + "configmaps/there", "application/json-patch+json", `[{"op":"copy","from":"/data","path":"/metadata/labels"}]`},
		{"PATCH", base + "configmaps/there", "application/merge-patch+json", `{"data":null}`},
		{"PATCH", base + "configmaps/there", "application/strategic-merge-patch+json", `{"metadata":{"finalizers":["a/b"],"$deleteFromPrimitiveList/finalizers":["x"],"$retainKeys":[1]}}`},
		{"PATCH", base + "configmaps/there?fieldManager=m", "application/apply-patch+yaml", "kind: ConfigMap\napiVersion: v1\nmetadata: {name: there}"},
		{"GET", base + "configmaps?labelSelector=a+in+(b,c),!d,e%3Df&fieldSelector=metadata.name!%3Dx&limit=3&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", "", ""},
		{"GET", base + "pods?resourceVersion=9e9&resourceVersionMatch=Exact&timeoutSeconds=-1", "", ""},
		{"DELETE", base + "configmaps", jsonType, `{"gracePeriodSeconds":-1,"preconditions":{"uid":"x"}}`}, {"PUT", base + "configmaps/there", jsonType, "null"},
		{"GET", "/apis/apps/v1/../v1beta1/deployments", "", ""}, {"OPTIONS", "/api/v1", "", ""}, {"GET", "/openapi/v3/api/v1?hash=x", "", ""},
	} {
		f.Add(s.method, s.uri, s.media, s.body)
	}
	for media, texts := range map[string]iter.Seq2[string, []byte]{jsonType: monster.JSON(), "application/yaml": monster.YAML(), "application/vnd.kubernetes.protobuf": monster.Proto()} {
		for _, text := range texts {
			f.Add("POST", base+"configmaps", media, string(text))
			f.Add("PUT", base+"pods/none", media, string(text))
			f.Add("DELETE", base+"configmaps/none", media, string(text))
		}
	}
	f.Fuzz(func(t *testing.T, method, uri, media, body string) {
		u, err := url.ParseRequestURI(uri)
		if err != nil || !strings.HasPrefix(u.Path, "/") || strings.Contains(uri, "watch") || strings.ContainsAny(method, " \r\n") || method == "" {
			return // not HTTP, or without end
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://x", strings.NewReader(body))
		if err != nil {
			return
		}
		r.URL, r.RequestURI = u, uri
		r.Header.Set("Content-Type", media)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != 504 && strings.Contains(w.Body.String(), "panic") {
			t.Fatalf("%s %s: %d %s", method, uri, w.Code, w.Body)
		}
		if w.Code >= 400 && strings.HasPrefix(w.Header().Get("Content-Type"), jsonType) {
			var s struct{ Kind string }
			if json.Unmarshal(w.Body.Bytes(), &s) != nil || s.Kind != "Status" {
				t.Errorf("%s %s: %d %.300s", method, uri, w.Code, w.Body)
			}
		}
	})
}

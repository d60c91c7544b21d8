package apiserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kit/monster"
)

// told sends a request and holds the answer against what every answer must be:
// no panic, and a Status when it is a refusal.
func told(t *testing.T, h http.Handler, r *http.Request, size int) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	monster.Bounded(t, size, func() { h.ServeHTTP(w, r) })
	if w.Code >= 500 && strings.Contains(w.Body.String(), "panic") {
		t.Fatalf("%s %s: %d %s", r.Method, r.URL, w.Code, w.Body)
	}
	var s struct{ Kind string }
	if w.Code >= 400 && (json.Unmarshal(w.Body.Bytes(), &s) != nil || s.Kind != "Status") {
		t.Errorf("%s %s: %d %.300s", r.Method, r.URL, w.Code, w.Body)
	}
	return w
}

const fuzzedDefinition = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"foos.example.com"},"spec":{"group":"example.com","scope":"Namespaced",
	"names":{"plural":"foos","singular":"foo","kind":"Foo","listKind":"FooList"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{
	"spec":{"type":"object","properties":{"a":{"type":"string","maxLength":8,"x-kubernetes-validations":[{"rule":"self.startsWith('x')"}]},"list":{"type":"array","x-kubernetes-list-type":"map",
	"x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"},"v":{"x-kubernetes-int-or-string":true}}}},
	"any":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}}]}}`

var patchMedia = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}

// FuzzPatches: a patch of any kind, to a built-in object or a custom one, changes
// it or is refused.
func FuzzPatches(f *testing.F) {
	c := newCustomServer(f)
	c.do("POST", crds, jsonType, fuzzedDefinition)
	c.do("POST", base+"configmaps", jsonType, configJSON("there", "v"))
	c.do("POST", base+"pods", jsonType, richPod("there"))
	foos := "/apis/example.com/v1/namespaces/default/foos"
	await(f, "the custom resource", func() bool {
		code, _, _ := c.do("POST", foos, jsonType, `{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"there"},"spec":{"a":"x","list":[{"k":"1","v":2}]}}`)
		return code == 201 || code == 409
	})
	paths := []string{base + "configmaps/there", base + "pods/there", foos + "/there", base + "pods/there/status"}
	for _, seed := range []string{
		`[{"op":"copy","from":"/data","path":"/metadata/labels"},{"op":"test","path":"/data/k","value":"v"}]`, `[{"op":"add","path":"/metadata/finalizers/-1","value":"a"}]`,
		`[{"op":"replace","path":"/spec/containers/99999999999999999999","value":{}}]`, `[{"op":"remove","path":""},{"op":"add","path":"","value":null}]`, `[null,{},{"op":7},{"op":"move"}]`,
		`[{"op":"add","path":"/spec/containers/9223372036854775807","value":1}]`, `[{"op":"move","from":"/spec","path":"/spec/containers/0/env"}]`,
		`[` + strings.Repeat(`{"op":"copy","from":"/data","path":"/data/x"},`, 60) + `{"op":"copy","from":"/data","path":"/data/y"}]`,
		`{"data":null}`, `{"metadata":null}`, `{"spec":{"containers":[{"$patch":"delete"}]}}`, `{"spec":{"containers":[{"name":"c","$patch":"replace"},{"$patch":"merge"}],"$setElementOrder/containers":[{"name":"z"},{}]}}`,
		`{"metadata":{"finalizers":["a/b"],"$deleteFromPrimitiveList/finalizers":["x",1],"$retainKeys":[1]}}`, `{"spec":{"$patch":{"a":1},"containers":{"name":"c"}}}`, `{"spec":{"tolerations":[1,"x",null]}}`,
		"kind: ConfigMap\napiVersion: v1\nmetadata: {name: there}\ndata: {a: b}", "kind: Pod\napiVersion: v1\nspec: {containers: [{name: c, image: x, ports: [{containerPort: 1},{containerPort: 1}]}]}",
		"kind: Pod\napiVersion: v1\nspec: {containers: [{name: c, image: x, resources: {limits: {cpu: 1e-99999999999}}}]}", "kind: Pod\napiVersion: v1\nspec: {overhead: {cpu: '1e-99999999999'}}",
		"kind: Foo\napiVersion: example.com/v1\nspec: {list: [{k: a},{k: a}], any: {a: [[{}]]}}", "kind: Foo\napiVersion: example.com/v1\nmetadata: {managedFields: [{fieldsV1: {'f:a': 7}}]}",
	} {
		for m := range patchMedia {
			f.Add(uint8(m), []byte(seed))
		}
	}
	for m := range patchMedia {
		for _, doc := range monster.JSON() {
			f.Add(uint8(m), doc)
		}
	}
	for _, doc := range monster.YAML() {
		f.Add(uint8(3), doc)
	}
	f.Fuzz(func(t *testing.T, media uint8, body []byte) {
		if len(body) > 1<<20 {
			return
		}
		kind := patchMedia[int(media)%len(patchMedia)]
		for _, path := range paths {
			r := request("PATCH", path+"?dryRun=All&fieldManager=fuzz", string(body))
			r.Header.Set("Content-Type", kind)
			told(t, c.h, r, len(body))
		}
	})
}

// FuzzOptions: whatever a query, and the headers that negotiate, say, the server
// answers.
func FuzzOptions(f *testing.F) {
	c := newCustomServer(f)
	for _, name := range []string{"a", "b", "c"} {
		c.do("POST", base+"configmaps", jsonType, configJSON(name, "v"))
	}
	for _, seed := range [][2]string{
		{"labelSelector=a+in+(b,c),!d,e%3Df&fieldSelector=metadata.name!%3Dx,metadata.namespace%3D%3Dy&limit=1", "application/json"},
		{"continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0&limit=2", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"},
		{"continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vIn0", "application/vnd.kubernetes.protobuf;q=NaN, */*;q=-1"},
		{"resourceVersion=9223372036854775807&resourceVersionMatch=Exact", "application/yaml"}, {"resourceVersion=-1&limit=-9223372036854775808", "text/html;q=1e999"},
		{"sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}, {"limit=1e3&timeoutSeconds=x", ";;,,=;"},
		{"labelSelector=" + strings.Repeat("a%3Db,", 5000) + "a%3Db", "*/*"}, {"labelSelector=" + strings.Repeat("(", 10000), ""}, {"fieldSelector=" + strings.Repeat("%5C,", 5000) + "%3D", strings.Repeat("a/b,", 10000)},
		{"labelSelector=%ff%fe+in+(%00)&fieldSelector=%ff%3D%ff", "\xff\xfe"}, {"pretty=%zz;a=b&dryRun=All&dryRun=None&includeObject=Object", "application/json"}, {"timeout=-1s&timeoutSeconds=99999999999999999999", ""},
		{"labelSelector=a+notin+(),b+gt+1e9,c+exists&pretty=1&propagationPolicy=x&gracePeriodSeconds=-1&preconditions.uid=x", "application/json;as=Table;v=v1beta1;g=meta.k8s.io"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, query, accept string) {
		if _, err := url.ParseRequestURI("/x?" + query); err != nil || strings.Contains(query, "watch") || len(query)+len(accept) > 1<<18 {
			return
		}
		for _, at := range []struct{ method, path string }{{"GET", base + "configmaps"}, {"GET", base + "configmaps/a"}, {"GET", "/apis"}, {"POST", base + "configmaps"}, {"DELETE", base + "configmaps/none"}} {
			r := request(at.method, "/x", "")
			r.URL.Path, r.URL.RawQuery = at.path, query
			r.Header["Accept"] = []string{accept}
			w := httptest.NewRecorder()
			monster.Bounded(t, len(query)+len(accept), func() { c.h.ServeHTTP(w, r) })
			if w.Code >= 500 && w.Code != http.StatusGatewayTimeout {
				t.Fatalf("%s %s?%s as %s: %d %.500s", at.method, at.path, query, accept, w.Code, w.Body)
			}
		}
	})
}

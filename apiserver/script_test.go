package apiserver_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver"
)

const (
	jsonType = "application/json"
	base     = "/api/v1/namespaces/default/"
)

func podJSON(name string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"n"}]}}`
}

func configJSON(name, value string) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"},"data":{"k":"` + value + `"}}`
}

// at walks into a decoded document: "metadata.name".
func at(doc map[string]any, path string) any {
	var v any = doc
	for p := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func TestErrorsAreUpstreams(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	c.do("POST", base+"pods", jsonType, podJSON("there"))
	for _, tc := range []struct {
		name, method, path, contentType, body string
		code                                  int
		reason, message                       string
	}{
		{"get what is not", "GET", base + "pods/x", "", "", 404, "NotFound", `pods "x" not found`},
		{"create twice", "POST", base + "pods", jsonType, podJSON("there"), 409, "AlreadyExists", `pods "there" already exists`},
		{"stale update", "PUT", base + "pods/there", jsonType, strings.Replace(podJSON("there"), `"labels"`, `"resourceVersion":"1","labels"`, 1), 409, "Conflict",
			`Operation cannot be fulfilled on pods "there": the object has been modified; please apply your changes to the latest version and try again`},
		{"name in the URL", "PUT", base + "pods/there", jsonType, podJSON("other"), 400, "BadRequest", "the name of the object (other) does not match the name on the URL (there)"},
		{"namespace in the body", "POST", base + "pods", jsonType, strings.Replace(podJSON("p"), `"name":"p"`, `"name":"p","namespace":"b"`, 1), 400, "BadRequest",
			"the namespace of the provided object does not match the namespace sent on the request"},
		{"version in the body", "POST", base + "pods", jsonType, `{"apiVersion":"apps/v1","kind":"Deployment"}`, 400, "BadRequest", "the API version in the data (apps/v1) does not match the expected API version (v1)"},
		{"kind in the body", "POST", base + "pods", jsonType, `{"apiVersion":"v1","kind":"ConfigMap"}`, 400, "BadRequest", `ConfigMap in version "v1" cannot be handled as a Pod: converting (v1.ConfigMap) to (v1.Pod): unknown conversion`},
		{"revision at creation", "POST", base + "configmaps", jsonType, strings.Replace(configJSON("n", "v"), `"name"`, `"resourceVersion":"3","name"`, 1), 500, "", "resourceVersion should not be set on objects to be created"},
		{"field selector", "GET", base + "pods?fieldSelector=spec.foo%3D1", "", "", 400, "BadRequest", "field label not supported: spec.foo"},
		{"field selector of a plain kind", "GET", base + "configmaps?fieldSelector=foo%3D1", "", "", 400, "BadRequest", `"foo" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"media type", "POST", base + "pods", "text/html", "x", 415, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"method", "POST", "/api/v1/pods", jsonType, podJSON("p"), 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"strict", "POST", base + "configmaps?fieldValidation=Strict", jsonType, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"dada":{}}`, 400, "BadRequest", `strict decoding error: unknown field "dada"`},
		{"too long", "POST", base + "configmaps", jsonType, strings.Repeat(" ", 3<<20+1), 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"},
		{"name missing", "POST", base + "configmaps", jsonType, `{"apiVersion":"v1","kind":"ConfigMap"}`, 422, "Invalid", `ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`},
		{"match without version", "GET", base + "pods?resourceVersionMatch=Exact", "", "", 422, "Invalid",
			`ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
		{"future", "GET", base + "pods?resourceVersion=999999&resourceVersionMatch=NotOlderThan", "", "", 504, "Timeout", ""},
		{"apply without manager", "PATCH", base + "pods/there", "application/apply-patch+yaml", podJSON("there"), 422, "Invalid",
			`PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`},
		{"patch type", "PATCH", base + "pods/there", "application/x", "{}", 415, "UnsupportedMediaType", ""},
		{"json patch test", "PATCH", base + "pods/there", "application/json-patch+json", `[{"op":"test","path":"/metadata/name","value":"no"}]`, 422, "Invalid", "the server rejected our request due to an error in our request"},
		{"uid precondition", "DELETE", base + "pods/there", jsonType, `{"preconditions":{"uid":"u"}}`, 409, "Conflict", ""},
		{"continue token", "GET", base + "pods?continue=%3F", "", "", 400, "BadRequest", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, doc, _ := client{t, c.h}.do(tc.method, tc.path, tc.contentType, tc.body)
			if code != tc.code || doc["kind"] != "Status" || doc["apiVersion"] != "v1" || doc["status"] != "Failure" {
				t.Fatalf("answer %d %v, want %d and a Status", code, doc, tc.code)
			}
			if r, _ := doc["reason"].(string); r != tc.reason {
				t.Errorf("reason %q, want %q", r, tc.reason)
			}
			if tc.message != "" && doc["message"] != tc.message {
				t.Errorf("message\n%s\nwant\n%s", doc["message"], tc.message)
			}
		})
	}
}

func TestUnknownKindIsAPlainPage(t *testing.T) {
	r := httptest.NewRequest("GET", "/api/v1/whales", nil)
	w := httptest.NewRecorder()
	newServer(t, apiserver.Config{}).Handler().ServeHTTP(w, r)
	if w.Code != 404 || w.Body.String() != "404 page not found\n" {
		t.Fatalf("%d %q", w.Code, w.Body)
	}
}

func TestLifeOfAnObject(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	code, made, _ := c.do("POST", base+"configmaps", jsonType, configJSON("a", "1"))
	if code != 201 || at(made, "metadata.uid") == "" || at(made, "metadata.creationTimestamp") == nil || at(made, "data.k") != "1" {
		t.Fatalf("create: %d %v", code, made)
	}
	rv := at(made, "metadata.resourceVersion")
	if code, same, _ := c.do("PUT", base+"configmaps/a", jsonType, configJSON("a", "1")); code != 200 || at(same, "metadata.resourceVersion") != rv {
		t.Errorf("an update that changes nothing made a revision: %d %v, was %v", code, at(same, "metadata.resourceVersion"), rv)
	}
	code, next, _ := c.do("PATCH", base+"configmaps/a", "application/merge-patch+json", `{"data":{"k":"2","l":"3"}}`)
	if code != 200 || at(next, "data.k") != "2" || at(next, "data.l") != "3" || at(next, "metadata.resourceVersion") == rv {
		t.Fatalf("patch: %d %v", code, next)
	}
	if code, dry, _ := c.do("PATCH", base+"configmaps/a?dryRun=All", "application/merge-patch+json", `{"data":{"k":"9"}}`); code != 200 || at(dry, "data.k") != "9" {
		t.Errorf("dry run: %d %v", code, dry)
	}
	if _, got, _ := c.do("GET", base+"configmaps/a", "", ""); at(got, "data.k") != "2" {
		t.Errorf("a dry run was stored: %v", got)
	}
	code, gone, _ := c.do("DELETE", base+"configmaps/a", "", "")
	if code != 200 || gone["status"] != "Success" || at(gone, "details.kind") != "configmaps" || at(gone, "details.uid") != at(made, "metadata.uid") {
		t.Fatalf("delete: %d %v", code, gone)
	}
	if code, _, _ = c.do("GET", base+"configmaps/a", "", ""); code != 404 {
		t.Errorf("still there: %d", code)
	}
}

func TestGenerateName(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	_, doc, _ := c.do("POST", base+"configmaps", jsonType, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"g-"}}`)
	name, _ := at(doc, "metadata.name").(string)
	if len(name) != 7 || !strings.HasPrefix(name, "g-") || strings.Trim(name[2:], "bcdfghjklmnpqrstvwxz2456789") != "" {
		t.Fatalf("name %q", name)
	}
}

func TestFinalizersAndPropagation(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	c.do("POST", base+"configmaps", jsonType, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"f","finalizers":["a.b/c"]}}`)
	code, doc, _ := c.do("DELETE", base+"configmaps/f?propagationPolicy=Foreground", "", "")
	if code != 200 || at(doc, "metadata.deletionTimestamp") == nil || fmt.Sprint(at(doc, "metadata.finalizers")) != "[a.b/c foregroundDeletion]" {
		t.Fatalf("delete: %d %v", code, doc)
	}
	if code, doc, _ = c.do("PATCH", base+"configmaps/f", "application/json-patch+json", `[{"op":"replace","path":"/metadata/finalizers","value":["new.b/c"]}]`); code != 422 {
		t.Errorf("a finalizer was added while deleting: %d %v", code, doc)
	}
	if code, doc, _ = c.do("PATCH", base+"configmaps/f", "application/merge-patch+json", `{"metadata":{"finalizers":null}}`); code != 200 {
		t.Fatalf("last finalizer: %d %v", code, doc)
	}
	if code, _, _ = c.do("GET", base+"configmaps/f", "", ""); code != 404 {
		t.Errorf("held by nothing, still there: %d", code)
	}
}

func TestListsInPages(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	for i := range 5 {
		c.do("POST", base+"configmaps", jsonType, configJSON(fmt.Sprint("c", i), "v"))
	}
	_, first, _ := c.do("GET", base+"configmaps?limit=2", "", "")
	token, _ := at(first, "metadata.continue").(string)
	if n := at(first, "metadata.remainingItemCount"); n != float64(3) || token == "" {
		t.Fatalf("first page: %v", first["metadata"])
	}
	raw, _ := base64.RawURLEncoding.DecodeString(token)
	if !strings.Contains(string(raw), `"v":"meta.k8s.io/v1"`) || !strings.Contains(string(raw), `"start":"c1\u0000"`) {
		t.Errorf("token %s", raw)
	}
	c.do("DELETE", base+"configmaps/c3", "", "") // the second page shows the state of the first
	_, second, _ := c.do("GET", base+"configmaps?limit=2&continue="+token, "", "")
	var names []string
	for _, item := range second["items"].([]any) {
		names = append(names, at(item.(map[string]any), "metadata.name").(string))
	}
	if fmt.Sprint(names) != "[c2 c3]" || at(second, "metadata.resourceVersion") != at(first, "metadata.resourceVersion") {
		t.Errorf("second page %v at %v", names, second["metadata"])
	}
}

// frames reads a watch of JSON lines until n events came.
func frames(t *testing.T, h http.Handler, path string, n int, then func()) []map[string]any {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	then()
	var out []map[string]any
	for lines := bufio.NewReader(resp.Body); len(out) < n; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		doc := map[string]any{}
		if err := json.Unmarshal(line, &doc); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, doc)
	}
	return out
}

func story(frames []map[string]any) string {
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "%s %v; ", f["type"], at(f, "object.metadata.name"))
	}
	return b.String()
}

func TestWatchTellsWhatASelectorSees(t *testing.T) {
	h := newServer(t, apiserver.Config{}).Handler()
	c := client{t, h}
	c.do("POST", base+"pods", jsonType, podJSON("old"))
	got := frames(t, h, base+"pods?watch=1&labelSelector=app%3Dx", 5, func() {
		c.do("POST", base+"pods", jsonType, podJSON("new"))
		c.do("POST", base+"pods", jsonType, strings.Replace(podJSON("other"), `"app":"x"`, `"app":"y"`, 1))
		c.do("PATCH", base+"pods/new", "application/merge-patch+json", `{"metadata":{"annotations":{"a":"b"}}}`)
		c.do("PATCH", base+"pods/new", "application/merge-patch+json", `{"metadata":{"labels":{"app":"z"}}}`)
		c.do("DELETE", base+"pods/old?gracePeriodSeconds=0", "", "")
	})
	if s := story(got); s != "ADDED old; ADDED new; MODIFIED new; DELETED new; DELETED old; " {
		t.Errorf("story: %s", s)
	}
}

func TestInitialEventsEndWithABookmark(t *testing.T) {
	h := newServer(t, apiserver.Config{}).Handler()
	client{t, h}.do("POST", base+"pods", jsonType, podJSON("p"))
	got := frames(t, h, base+"pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", 2, func() {})
	if got[0]["type"] != "ADDED" || got[1]["type"] != "BOOKMARK" {
		t.Fatalf("%v", got)
	}
	notes, _ := at(got[1], "object.metadata.annotations").(map[string]any)
	if notes["k8s.io/initial-events-end"] != "true" || at(got[1], "object.kind") != "Pod" {
		t.Errorf("bookmark %v", got[1])
	}
}

func TestProtobufSaysTheSame(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	for _, n := range []string{"a", "b"} {
		c.do("POST", base+"pods", jsonType, podJSON(n))
	}
	get := func(path, accept string) []byte {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		if w.Code != 200 || w.Header().Get("Content-Type") != accept {
			t.Fatalf("%d %s", w.Code, w.Header())
		}
		return w.Body.Bytes()
	}
	for _, path := range []string{base + "pods", base + "pods/a"} {
		a, _, err := api.Decode(api.FormatProtobuf, get(path, api.Protobuf), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := api.Decode(api.FormatJSON, get(path, api.JSON), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if string(x) != string(y) {
			t.Errorf("%s:\n%s\n%s", path, x, y)
		}
	}
}

func TestTableAndMetadata(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	c.do("POST", base+"pods", jsonType, podJSON("a"))
	ask := func(accept string) map[string]any {
		r := httptest.NewRequest("GET", base+"pods", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		doc := map[string]any{}
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return doc
	}
	table := ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	row := table["rows"].([]any)[0].(map[string]any)
	if table["kind"] != "Table" || row["cells"].([]any)[0] != "a" || at(row, "object.kind") != "PartialObjectMetadata" || at(row, "object.metadata.name") != "a" || at(row, "object.spec") != nil {
		t.Errorf("table %v", table)
	}
	list := ask("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
	item := list["items"].([]any)[0].(map[string]any)
	if list["kind"] != "PartialObjectMetadataList" || at(item, "metadata.labels.app") != "x" || item["spec"] != nil {
		t.Errorf("metadata %v", list)
	}
}

func TestApplyConflictsAndOwners(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	apply := func(manager, value, extra string) (int, map[string]any) {
		code, doc, _ := c.do("PATCH", base+"configmaps/a?fieldManager="+manager+extra, "application/apply-patch+yaml", configJSON("a", value))
		return code, doc
	}
	if code, doc := apply("one", "1", ""); code != 201 || at(doc, "data.k") != "1" {
		t.Fatalf("first apply: %d %v", code, doc)
	}
	code, doc := apply("two", "2", "")
	if code != 409 || doc["message"] != `Apply failed with 1 conflict: conflict with "one": .data.k` {
		t.Fatalf("conflict: %d %v", code, doc)
	}
	if code, doc = apply("two", "2", "&force=true"); code != 200 || at(doc, "data.k") != "2" {
		t.Fatalf("force: %d %v", code, doc)
	}
	owners := at(doc, "metadata.managedFields").([]any)
	if len(owners) != 1 || at(owners[0].(map[string]any), "manager") != "two" {
		t.Errorf("owners %v", owners)
	}
}

func TestRetiredVersionsStillWork(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	old := `{"apiVersion":"extensions/v1beta1","kind":"Deployment","metadata":{"name":"d"},"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"n"}]}}}}`
	code, doc, header := c.do("POST", "/apis/extensions/v1beta1/namespaces/default/deployments", jsonType, old)
	if code != 201 || doc["apiVersion"] != "extensions/v1beta1" {
		t.Fatalf("create: %d %v", code, doc)
	}
	if w := header.Get("Warning"); w != `299 - "extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment"` {
		t.Errorf("warning %s", w)
	}
	_, now, _ := c.do("GET", "/apis/apps/v1/namespaces/default/deployments/d", "", "")
	if now["apiVersion"] != "apps/v1" || at(now, "spec.selector.matchLabels.a") != "b" {
		t.Errorf("as stored: %v", now)
	}
}

func TestDiscovery(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	_, list, _ := c.do("GET", "/api/v1", "", "")
	for _, r := range list["resources"].([]any) {
		m := r.(map[string]any)
		if m["name"] == "pods" && (m["storageVersionHash"] != "xPOwRZ+Yhw8=" || fmt.Sprint(m["shortNames"]) != "[po]" || m["singularName"] != "pod") {
			t.Errorf("pods: %v", m)
		}
	}
	r := httptest.NewRequest("GET", "/apis", nil)
	r.Header.Set("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	doc := map[string]any{}
	json.Unmarshal(w.Body.Bytes(), &doc)
	var groups []string
	for _, g := range doc["items"].([]any) {
		groups = append(groups, at(g.(map[string]any), "metadata.name").(string))
	}
	if doc["kind"] != "APIGroupDiscoveryList" || doc["apiVersion"] != "apidiscovery.k8s.io/v2" || groups[0] != "apiregistration.k8s.io" || groups[1] != "apps" || groups[len(groups)-1] != "extensions" {
		t.Errorf("aggregated: %v %v", doc["kind"], groups)
	}
	again := httptest.NewRequest("GET", "/apis", nil)
	again.Header = r.Header.Clone()
	again.Header.Set("If-None-Match", w.Header().Get("ETag"))
	w = httptest.NewRecorder()
	if c.h.ServeHTTP(w, again); w.Code != http.StatusNotModified {
		t.Errorf("with its ETag: %d", w.Code)
	}
}

// TestDiscoveryForPeople: who reads it himself gets indentation, and YAML and
// protobuf when asked for.
func TestDiscoveryForPeople(t *testing.T) {
	h := newServer(t, apiserver.Config{}).Handler()
	for _, c := range []struct{ path, agent, accept, starts string }{
		{"/api", "curl/8.1", "", "{\n  \"kind\": \"APIVersions\",\n"},
		{"/api/v1", "Wget/1.2", "", "{\n  \"kind\": \"APIResourceList\",\n"},
		{"/apis", "Mozilla/5.0 (X11)", "", "{\n  \"kind\": \"APIGroupList\",\n"},
		{"/apis/apps", "kubectl", "", "{\"kind\":\"APIGroup\","},
		{"/apis/apps?pretty=true", "kubectl", "", "{\n  \"kind\": \"APIGroup\",\n"},
		{"/apis/apps/v1?pretty=0", "curl/8.1", "", "{\"kind\":\"APIResourceList\","},
		{"/apis", "curl/8.1", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "{\n  \"kind\": \"APIGroupDiscoveryList\",\n"},
		{"/apis/apps", "kubectl", "application/yaml", "apiVersion: v1\nkind: APIGroup\n"},
		{"/apis/apps/v1", "kubectl", "application/vnd.kubernetes.protobuf", "k8s\x00"},
		{"/apis/apps/v1", "kubectl", "text/html", "only the following media types are accepted"},
		{"/version", "kubectl", "", "{\n  \"major\""},
	} {
		r := httptest.NewRequest("GET", c.path, nil)
		r.Header.Set("User-Agent", c.agent)
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); !strings.HasPrefix(w.Body.String(), c.starts) {
			t.Errorf("%s by %s, %s: %.80q", c.path, c.agent, c.accept, w.Body.String())
		}
	}
}

// TestCBORIsNotSpoken: as upstream with its feature off, so that clients go on in JSON.
func TestCBORIsNotSpoken(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	get := func(accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", base+"configmaps", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		return w
	}
	if w := get("application/cbor"); w.Code != http.StatusNotAcceptable {
		t.Errorf("alone: %d %s", w.Code, w.Body)
	}
	if w := get("application/cbor, application/json;q=0.9"); w.Code != 200 || w.Header().Get("Content-Type") != jsonType {
		t.Errorf("preferred: %d %s", w.Code, w.Header())
	}
	for method, content := range map[string]string{"POST": "application/cbor", "PATCH": "application/apply-patch+cbor"} {
		path := base + "configmaps"
		if method == "PATCH" {
			path += "/c?fieldManager=m"
		}
		if code, _, _ := c.do(method, path, content, "\xa0"); code != http.StatusUnsupportedMediaType {
			t.Errorf("%s of %s: %d", method, content, code)
		}
	}
}

func TestOpenAPIKnowsPods(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	_, root, _ := c.do("GET", "/openapi/v3", "", "")
	link, _ := at(root, "paths").(map[string]any)["api/v1"].(map[string]any)
	code, doc, _ := c.do("GET", link["serverRelativeURL"].(string), "", "")
	if code != 200 {
		t.Fatalf("%d", code)
	}
	schemas := at(doc, "components.schemas").(map[string]any)
	pod := schemas["io.k8s.api.core.v1.Pod"].(map[string]any)
	if !strings.Contains(fmt.Sprint(pod["x-kubernetes-group-version-kind"]), "kind:Pod") || pod["properties"].(map[string]any)["spec"] == nil {
		t.Errorf("pod schema %v", pod)
	}
	for _, s := range schemas {
		data, _ := json.Marshal(s)
		for _, part := range strings.Split(string(data), `"#/components/schemas/`)[1:] {
			if name, _, _ := strings.Cut(part, `"`); schemas[name] == nil {
				t.Fatalf("reference to %s, which is not there", name)
			}
		}
	}
}

func TestHealthReportsAsUpstream(t *testing.T) {
	r := httptest.NewRequest("GET", "/livez?verbose&exclude=ping", nil)
	w := httptest.NewRecorder()
	newServer(t, apiserver.Config{}).Handler().ServeHTTP(w, r)
	if !strings.HasPrefix(w.Body.String(), "[+]ping excluded: ok\n") || !strings.Contains(w.Body.String(), "[-]poststarthook/start-system-namespaces-controller failed: reason withheld\n") || w.Code != 500 {
		t.Errorf("%d\n%s", w.Code, w.Body)
	}
}

func TestTheClientInProcess(t *testing.T) {
	s := newServer(t, apiserver.Config{})
	c := s.Local(apiserver.Loopback())
	ctx := t.Context()
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	in := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	made, err := c.Create(ctx, pods, "default", "", "", in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if in.UID != "" || made.GetUID() == "" {
		t.Error("the caller's object was changed, or the answer is it")
	}
	list, err := c.List(ctx, pods, "", nil)
	if err != nil || len(list.Items) != 1 || list.Items[0] != made {
		t.Fatalf("list: %v %v: objects are not shared", list, err)
	}
	events, err := c.Watch(ctx, pods, "default", &metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	if _, err := c.Patch(ctx, pods, "default", "p", "status", types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), nil); err != nil {
		t.Fatal(err)
	}
	ev, err := events.Next(ctx)
	if err != nil || ev.Type != watch.Modified || ev.Object.(*corev1.Pod).Status.Phase != corev1.PodRunning {
		t.Fatalf("event %v %v", ev, err)
	}
	if body, err := c.Raw(ctx, "GET", "/version", nil); err != nil || !strings.Contains(string(body), `"major": "1"`) {
		t.Errorf("raw: %s %v", body, err)
	}
}

func TestPagesGoOnWithoutTheirBeginning(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	for i := range 10 {
		c.do("POST", base+"configmaps", jsonType, configJSON(fmt.Sprint("c", i), "v"))
	}
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":-1,"start":"c1\u0000"}`))
	var names []string
	for found := 2; token != ""; {
		_, page, _ := c.do("GET", base+"configmaps?limit=3&continue="+token, "", "")
		items := page["items"].([]any)
		for _, item := range items {
			names = append(names, fmt.Sprint(at(item.(map[string]any), "metadata.name")))
		}
		found += len(items)
		if left, _ := at(page, "metadata.remainingItemCount").(float64); int(left) != 10-found {
			t.Errorf("%v are left after %v", left, names)
		}
		token, _ = at(page, "metadata.continue").(string)
	}
	if fmt.Sprint(names) != "[c2 c3 c4 c5 c6 c7 c8 c9]" {
		t.Errorf("names %v", names)
	}
}

package apiserver_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
)

const (
	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
	applyPatch     = "application/apply-patch+yaml"
)

// TestPortsOfServices: node ports and health-check ports are handed out, kept,
// refused when taken, and come back.
func TestPortsOfServices(t *testing.T) {
	c := newServerOfRanges(t, "10.96.0.0/24")
	made := func(name, spec string) (int, map[string]any) {
		code, doc, _ := c.do("POST", base+"services", jsonType, `{"apiVersion":"v1","kind":"Service","metadata":{"name":"`+name+`"},"spec":{`+spec+`}}`)
		return code, doc
	}
	port := func(doc map[string]any) any {
		return at(doc["spec"].(map[string]any)["ports"].([]any)[0].(map[string]any), "nodePort")
	}
	code, lb := made("lb", `"type":"LoadBalancer","externalTrafficPolicy":"Local","ports":[{"port":80}]`)
	health := at(lb, "spec.healthCheckNodePort")
	if code != 201 || port(lb).(float64) < 30000 || health.(float64) < 30000 || health == port(lb) {
		t.Fatal(code, lb)
	}
	if code, doc := made("thief", fmt.Sprintf(`"type":"NodePort","ports":[{"port":80,"nodePort":%v}]`, health)); code != 422 ||
		doc["message"] != fmt.Sprintf(`Service "thief" is invalid: spec.ports[0].nodePort: Invalid value: %v: provided port is already allocated`, health) {
		t.Errorf("taken: %d %v", code, doc["message"])
	}
	if code, doc := made("far", `"type":"NodePort","ports":[{"port":80,"nodePort":40000}]`); code != 422 ||
		doc["message"] != `Service "far" is invalid: spec.ports[0].nodePort: Invalid value: 40000: provided port is not in the valid range. The range of valid ports is 30000-30031` {
		t.Errorf("outside: %d %v", code, doc["message"])
	}
	code, doc, _ := c.do("PATCH", base+"services/lb", mergePatch, `{"spec":{"type":"ClusterIP","externalTrafficPolicy":null}}`)
	if code != 200 || port(doc) != nil || at(doc, "spec.healthCheckNodePort") != nil {
		t.Fatal(code, doc)
	}
	if code, doc := made("heir", fmt.Sprintf(`"type":"NodePort","ports":[{"port":80,"nodePort":%v}]`, health)); code != 201 {
		t.Errorf("given back: %d %v", code, doc["message"])
	}
}

// TestSubresources: each changes its part of the object and nothing else.
func TestSubresources(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	must := func(want int, method, path, contentType, body string) map[string]any {
		t.Helper()
		code, doc, _ := c.do(method, path, contentType, body)
		if code != want {
			t.Fatalf("%s %s: %d %v", method, path, code, doc["message"])
		}
		return doc
	}
	pod := must(201, "POST", base+"pods", jsonType, podJSON("p"))
	if at(pod, "status.phase") != "Pending" {
		t.Errorf("a new pod: %v", pod["status"])
	}
	doc := must(200, "PATCH", base+"pods/p/status", mergePatch, `{"spec":{"priority":7},"status":{"phase":"Running"}}`)
	if at(doc, "status.phase") != "Running" || at(doc, "spec.priority") != nil {
		t.Errorf("status: %v %v", doc["status"], at(doc, "spec.priority"))
	}
	doc = must(200, "PATCH", base+"pods/p", mergePatch, `{"status":{"phase":"Failed"},"metadata":{"labels":{"l":"m"}}}`)
	if at(doc, "status.phase") != "Running" || at(doc, "metadata.labels.l") != "m" {
		t.Errorf("main: %v", doc)
	}
	doc = must(200, "PATCH", base+"pods/p/ephemeralcontainers", strategicPatch, `{"spec":{"ephemeralContainers":[{"name":"debug","image":"b"}]}}`)
	if n, _ := at(doc, "spec.ephemeralContainers").([]any); len(n) != 1 {
		t.Errorf("ephemeral: %v", doc["spec"])
	}
	doc = must(422, "PATCH", base+"pods/p", strategicPatch, `{"spec":{"ephemeralContainers":[{"name":"other","image":"b"}]}}`)
	if !strings.Contains(fmt.Sprint(doc["message"]), "pod updates may not change fields other than") {
		t.Errorf("ephemeral by the main path: %v", doc["message"])
	}
	must(201, "POST", base+"pods", jsonType, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"r"},"spec":{"containers":[{"name":"c","image":"n","resources":{"requests":{"cpu":"1"},"limits":{"cpu":"1"}}}]}}`)
	doc = must(200, "PATCH", base+"pods/r/resize", strategicPatch, `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"2"}}}]}}`)
	if cpu := at(at(doc, "spec.containers").([]any)[0].(map[string]any), "resources.requests.cpu"); cpu != "2" {
		t.Errorf("resized: %v", cpu)
	}
	const deployments = "/apis/apps/v1/namespaces/default/deployments"
	must(201, "POST", deployments, jsonType, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"n"}]}}}}`)
	scale := must(200, "GET", deployments+"/d/scale", "", "")
	if scale["kind"] != "Scale" || scale["apiVersion"] != "autoscaling/v1" || at(scale, "spec.replicas") != float64(1) || at(scale, "status.selector") != "a=b" {
		t.Errorf("scale: %v", scale)
	}
	must(200, "PATCH", deployments+"/d/scale", mergePatch, `{"spec":{"replicas":4}}`)
	if doc = must(200, "GET", deployments+"/d", "", ""); at(doc, "spec.replicas") != float64(4) || at(doc, "metadata.generation") != float64(2) {
		t.Errorf("scaled: %v", doc["spec"])
	}
	must(201, "POST", "/api/v1/namespaces", jsonType, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"going"}}`)
	must(200, "DELETE", "/api/v1/namespaces/going", "", "")
	doc = must(200, "PUT", "/api/v1/namespaces/going/finalize", jsonType, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"going"},"spec":{"finalizers":[]}}`)
	if code, _, _ := c.do("GET", "/api/v1/namespaces/going", "", ""); code != 404 {
		t.Errorf("finalized, still there: %v", doc)
	}
}

// TestStrategicMerge: lists merge by their keys, directives are heard.
func TestStrategicMerge(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	const deployments = "/apis/apps/v1/namespaces/default/deployments"
	c.do("POST", deployments, jsonType, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[
		{"name":"one","image":"i","env":[{"name":"A","value":"1"},{"name":"B","value":"2"}]},{"name":"two","image":"j"}],"tolerations":[{"key":"x","operator":"Exists"}]}}}}`)
	code, doc, _ := c.do("PATCH", deployments+"/d", strategicPatch, `{"spec":{"template":{"spec":{"containers":[
		{"name":"one","env":[{"name":"A","value":"9"},{"name":"B","$patch":"delete"},{"name":"C","value":"3"}]},{"name":"two","$patch":"delete"}],"tolerations":[{"key":"y","operator":"Exists"}]}}}}`)
	if code != 200 {
		t.Fatal(code, doc["message"])
	}
	containers := at(doc, "spec.template.spec.containers").([]any)
	env, _ := json.Marshal(containers[0].(map[string]any)["env"])
	tolerations, _ := json.Marshal(at(doc, "spec.template.spec.tolerations"))
	if len(containers) != 1 || string(env) != `[{"name":"A","value":"9"},{"name":"C","value":"3"}]` || string(tolerations) != `[{"key":"y","operator":"Exists"}]` {
		t.Errorf("%s %s %v", env, tolerations, containers)
	}
}

// TestPatchesAreBounded: a patch of too many operations is refused before it runs.
func TestPatchesAreBounded(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	c.do("POST", base+"configmaps", jsonType, configJSON("c", "v"))
	op := `{"op":"add","path":"/metadata/labels","value":{}},`
	code, doc, _ := c.do("PATCH", base+"configmaps/c", "application/json-patch+json", "["+strings.Repeat(op, 10000)+strings.TrimSuffix(op, ",")+"]")
	if code != 413 || doc["message"] != "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001" {
		t.Errorf("%d %v", code, doc["message"])
	}
}

// TestStatusIsReset: who applies a status to the object itself owns none of it.
func TestStatusIsReset(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	const doc = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"n"}]},"status":{"message":"mine"}}`
	code, got, _ := c.do("PATCH", base+"pods/p?fieldManager=one", applyPatch, doc)
	if code != 201 {
		t.Fatal(code, got["message"])
	}
	owned, _ := json.Marshal(at(got, "metadata.managedFields"))
	if at(got, "status.message") != nil || strings.Contains(string(owned), "f:status") || !strings.Contains(string(owned), `"f:labels":{"f:a":{}}`) {
		t.Errorf("%v %s", got["status"], owned)
	}
	code, got, _ = c.do("PATCH", base+"pods/p/status?fieldManager=two", applyPatch, strings.Replace(doc, `,"labels":{"a":"b"}`, "", 1))
	if code != 200 {
		t.Fatal(code, got["message"])
	}
	owners := at(got, "metadata.managedFields").([]any)
	if at(got, "status.message") != "mine" || at(got, "metadata.labels.a") != "b" || len(owners) != 2 {
		t.Errorf("%v %v", got["status"], owners)
	}
	for _, o := range owners {
		m := o.(map[string]any)
		if m["manager"] == "two" && (m["subresource"] != "status" || strings.Contains(fmt.Sprint(m["fieldsV1"]), "f:spec")) {
			t.Errorf("owner of the status: %v", m)
		}
	}
}

// TestLargeAnswersAreCompressed: when the client can read it, and only then.
func TestLargeAnswersAreCompressed(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	for i := range 40 {
		c.do("POST", base+"configmaps", jsonType, configJSON(fmt.Sprint("c", i), strings.Repeat("x", 8<<10)))
	}
	ask := func(path, encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept-Encoding", encoding)
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		return w
	}
	plain, packed := ask(base+"configmaps", ""), ask(base+"configmaps", "gzip")
	if plain.Header().Get("Content-Encoding") != "" || packed.Header().Get("Content-Encoding") != "gzip" || packed.Body.Len() > plain.Body.Len()/5 {
		t.Fatalf("%v %v", plain.Header(), packed.Header())
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	if whole, err := io.ReadAll(z); err != nil || string(whole) != plain.Body.String() {
		t.Errorf("unpacked it is something else: %v", err)
	}
	if small := ask(base+"configmaps/c0", "gzip"); small.Header().Get("Content-Encoding") != "" {
		t.Error("a small answer was compressed")
	}
}

// TestWatchesInOtherForms: rows, metadata alone, and the end when time is up.
func TestWatchesInOtherForms(t *testing.T) {
	h := newServer(t, apiserver.Config{}).Handler()
	client{t, h}.do("POST", base+"pods", jsonType, podJSON("p"))
	watch := func(accept string) map[string]any {
		t.Helper()
		r := httptest.NewRequest("GET", base+"pods?watch=1&timeoutSeconds=1", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r) // returns when time is up
		line, _, _ := strings.Cut(w.Body.String(), "\n")
		doc := map[string]any{}
		if err := json.Unmarshal([]byte(line), &doc); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return doc
	}
	table := watch("application/json;as=Table;v=v1;g=meta.k8s.io")
	rows, _ := at(table, "object.rows").([]any)
	if table["type"] != "ADDED" || at(table, "object.kind") != "Table" || len(rows) != 1 || rows[0].(map[string]any)["cells"].([]any)[0] != "p" {
		t.Errorf("table: %v", table)
	}
	meta := watch("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
	if at(meta, "object.kind") != "PartialObjectMetadata" || at(meta, "object.metadata.name") != "p" || at(meta, "object.spec") != nil {
		t.Errorf("metadata: %v", meta)
	}
}

// TestListsOfOldRevisions: exactly, at least, and what cannot be.
func TestListsOfOldRevisions(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	_, first, _ := c.do("POST", base+"configmaps", jsonType, configJSON("a", "1"))
	_, second, _ := c.do("POST", base+"configmaps", jsonType, configJSON("b", "1"))
	then, now := at(first, "metadata.resourceVersion").(string), at(second, "metadata.resourceVersion").(string)
	list := func(query string) (int, int, map[string]any) {
		code, doc, _ := c.do("GET", base+"configmaps?"+query, "", "")
		items, _ := doc["items"].([]any)
		return code, len(items), doc
	}
	if code, n, doc := list("resourceVersion=" + then + "&resourceVersionMatch=Exact"); code != 200 || n != 1 || at(doc, "metadata.resourceVersion") != then {
		t.Errorf("exact: %d %d %v", code, n, doc["metadata"])
	}
	if code, n, _ := list("resourceVersion=" + now + "&resourceVersionMatch=NotOlderThan"); code != 200 || n != 2 {
		t.Errorf("not older than: %d %d", code, n)
	}
	if code, n, _ := list("resourceVersion=0"); code != 200 || n != 2 {
		t.Errorf("whatever is at hand: %d %d", code, n)
	}
	if code, _, doc := list("resourceVersion=0&resourceVersionMatch=Exact"); code != 422 || !strings.Contains(fmt.Sprint(doc["message"]), `resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"`) {
		t.Errorf("exactly anything: %d %v", code, doc["message"])
	}
	if code, _, doc := list("resourceVersion=x"); code != 400 || doc["message"] != `resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax` {
		t.Errorf("no number: %d %v", code, doc["message"])
	}
	if code, _, doc := list("sendInitialEvents=true"); code != 422 || !strings.Contains(fmt.Sprint(doc["message"]), "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list") {
		t.Errorf("initial events of a list: %d %v", code, doc["message"])
	}
}

// TestRetiredVersionsComeLast: in every group, after all that are not retired, and
// never preferred.
func TestRetiredVersionsComeLast(t *testing.T) {
	c := client{t, newServer(t, apiserver.Config{}).Handler()}
	_, list, _ := c.do("GET", "/apis", "", "")
	order, preferred := map[string]string{}, map[string]string{}
	for _, g := range list["groups"].([]any) {
		m := g.(map[string]any)
		var names []string
		for _, v := range m["versions"].([]any) {
			names = append(names, v.(map[string]any)["version"].(string))
		}
		order[m["name"].(string)], preferred[m["name"].(string)] = strings.Join(names, " "), at(m, "preferredVersion.version").(string)
	}
	for group, want := range map[string]string{"apps": "v1", "batch": "v1", "policy": "v1", "networking.k8s.io": "v1", "autoscaling": "v2", "rbac.authorization.k8s.io": "v1"} {
		if !strings.HasPrefix(order[group], want) || preferred[group] != want {
			t.Errorf("%s: %s, preferred %s", group, order[group], preferred[group])
		}
	}
	if !strings.HasSuffix(order["apps"], "v1beta2 v1beta1") {
		t.Errorf("apps: %s", order["apps"])
	}
	groups := list["groups"].([]any)
	if last := at(groups[len(groups)-1].(map[string]any), "name"); last != "extensions" {
		t.Errorf("the last group is %v", last)
	}
}

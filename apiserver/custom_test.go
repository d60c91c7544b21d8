package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/crd"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	requests "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/all"
	"github.com/sampan-dev/sampan/storage/cache"
)

const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// newCustomServer is a server that serves custom resources too.
func newCustomServer(t testing.TB) client { return newCustomServerTelling(t, func([]resource.Kind) {}) }

// newCustomServerTelling tells of the kinds that definitions make.
func newCustomServerTelling(t testing.TB, tell func([]resource.Kind)) client {
	t.Helper()
	kinds := all.Kinds()
	registry := rest.NewRegistry(kinds)
	store := cached(t, registry)
	fields := apply.New(openapi.NewMerger())
	e := rest.New(rest.Deps{Store: store, Registry: registry, Fields: fields})
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: e, OpenAPI: openapi.New(registry.Kinds)})
	if err != nil {
		t.Fatal(err)
	}
	own := map[schema.GroupResource]bool{}
	for _, k := range kinds {
		own[k.Info().GroupResource()] = true
	}
	c := crd.New(crd.Deps{
		Back: e.Backend(), Schemas: openapi.Definitions, Forget: fields.Forget,
		Serve: func(custom []resource.Kind) {
			tell(custom)
			registry.Set(append(kinds[:len(kinds):len(kinds)], custom...))
		},
		Keep:    func(p string) { store.(*cache.Cache).Register("/registry/"+p+"/", nil) },
		Drop:    func(p string) { store.(*cache.Cache).Unregister("/registry/" + p + "/") },
		Builtin: func(gr schema.GroupResource) bool { return own[gr] },
	})
	ctx := requests.WithUser(t.Context(), apiserver.Loopback())
	if err := c.Fill(ctx); err != nil {
		t.Fatal(err)
	}
	g := run.New(ctx)
	g.Go("custom resources", c.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	return client{t, s.Handler()}
}

// within waits for a condition.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// define makes a definition and waits until its kind is served.
func (c client) define(yaml string) {
	c.t.Helper()
	code, doc, _ := c.do("POST", crds, "application/yaml", yaml)
	if code != 201 {
		c.t.Fatalf("definition: %d %v", code, doc["message"])
	}
	name := at(doc, "metadata.name").(string)
	within(c.t, name+" is established", func() bool {
		_, doc, _ := c.do("GET", crds+"/"+name, "", "")
		return c.condition(doc, "Established") == "True InitialNamesAccepted"
	})
}

func (c client) condition(doc map[string]any, kind string) string {
	list, _ := at(doc, "status.conditions").([]any)
	for _, v := range list {
		if m := v.(map[string]any); m["type"] == kind {
			return fmt.Sprint(m["status"], " ", m["reason"])
		}
	}
	return ""
}

// accepting asks for an answer of a form.
func (c client) accepting(method, path, accept string) (int, map[string]any, http.Header) {
	c.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	out := map[string]any{}
	json.Unmarshal(w.Body.Bytes(), &out)
	return w.Code, out, w.Header()
}

const crontabs = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec, description: The cron spec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields:
    - jsonPath: .spec.image
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - rule: "!has(self.minReplicas) || self.minReplicas <= self.replicas"
              messageExpression: "self.replicas == 1 ? 'one is too few' : 'these are too few'"
            properties:
              cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'}
              image:
                type: string
                default: busybox
                maxLength: 40
                x-kubernetes-validations:
                - {rule: self == oldSelf, message: Value is immutable}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              minReplicas: {type: integer}
              mode: {type: string, enum: [fast, slow]}
              port: {x-kubernetes-int-or-string: true}
              extra: {type: object, x-kubernetes-preserve-unknown-fields: true}
              hosts:
                type: array
                items: {type: string}
                x-kubernetes-list-type: set
                maxItems: 10
              rules:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, value: {type: string}}
          status:
            type: object
            properties: {replicas: {type: integer}, labelSelector: {type: string}, phase: {type: string}}
`

const tabs = "/apis/stable.example.com/v1/namespaces/default/crontabs"

func tab(name, spec string) string {
	return `{"apiVersion":"stable.example.com/v1","kind":"CronTab","metadata":{"name":"` + name + `"},"spec":` + spec + `}`
}

func TestLifeOfACustomResource(t *testing.T) {
	c := newCustomServer(t)
	if code, _, _ := c.do("GET", tabs, "", ""); code != 404 {
		t.Fatalf("served before it is defined: %d", code)
	}
	c.define(crontabs)
	code, made, _ := c.do("POST", tabs, jsonType, tab("a", `{"cronSpec":"* * * * */5","port":"http","extra":{"x":{"y":1}},"unknown":true}`))
	if code != 201 {
		t.Fatalf("create: %d %v", code, made)
	}
	for path, want := range map[string]any{
		"spec.image": "busybox", "spec.replicas": float64(1), "spec.port": "http", "spec.unknown": nil, "metadata.generation": float64(1),
		"metadata.namespace": "default", "spec.extra.x.y": float64(1), "kind": "CronTab",
	} {
		if got := at(made, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if at(made, "metadata.uid") == nil || at(made, "metadata.managedFields") == nil {
		t.Errorf("metadata %v", made["metadata"])
	}
	// Status and spec are written apart, and generation counts the spec.
	_, doc, _ := c.do("PATCH", tabs+"/a", "application/merge-patch+json", `{"spec":{"replicas":3},"status":{"phase":"no"}}`)
	if at(doc, "metadata.generation") != float64(2) || at(doc, "status") != nil {
		t.Errorf("after a patch of the spec: %v", doc)
	}
	_, doc, _ = c.do("PATCH", tabs+"/a/status", "application/merge-patch+json", `{"spec":{"replicas":9},"status":{"phase":"Running","replicas":3,"labelSelector":"a=b"}}`)
	if at(doc, "metadata.generation") != float64(2) || at(doc, "status.phase") != "Running" || at(doc, "spec.replicas") != float64(3) {
		t.Errorf("after a patch of the status: %v", doc)
	}
	if code, doc, _ = c.do("GET", tabs+"/a/scale", "", ""); code != 200 || at(doc, "spec.replicas") != float64(3) || at(doc, "status.selector") != "a=b" {
		t.Errorf("scale: %d %v", code, doc)
	}
	if code, doc, _ = c.do("PATCH", tabs+"/a/scale", "application/merge-patch+json", `{"spec":{"replicas":5}}`); code != 200 || at(doc, "spec.replicas") != float64(5) {
		t.Errorf("rescale: %d %v", code, doc)
	}
	if _, doc, _ = c.do("GET", tabs+"/a", "", ""); at(doc, "spec.replicas") != float64(5) || at(doc, "metadata.generation") != float64(3) {
		t.Errorf("after rescaling: %v", doc)
	}
	// Lists, selectors, deletion.
	c.do("POST", tabs, jsonType, tab("b", `{"cronSpec":"* * * * *","image":"nginx"}`))
	if _, doc, _ = c.do("GET", tabs+"?fieldSelector=spec.image%3Dnginx", "", ""); len(doc["items"].([]any)) != 1 || doc["kind"] != "CronTabList" {
		t.Errorf("selected: %v", doc)
	}
	if code, doc, _ = c.do("GET", tabs+"?fieldSelector=spec.mode%3Dx", "", ""); code != 400 || doc["message"] != "field label not supported: spec.mode" {
		t.Errorf("unknown field: %d %v", code, doc)
	}
	if code, doc, _ = c.do("DELETE", tabs, "", ""); code != 200 || len(doc["items"].([]any)) != 2 {
		t.Errorf("delete collection: %d %v", code, doc)
	}
	if _, doc, _ = c.do("GET", tabs, "", ""); len(doc["items"].([]any)) != 0 {
		t.Errorf("left: %v", doc)
	}
}

func TestCustomResourcesAreJudged(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	for _, tc := range []struct{ name, spec, want string }{
		{"required", `{}`, `spec.cronSpec: Required value`},
		{"pattern", `{"cronSpec":"x"}`, `spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'`},
		{"maximum", `{"cronSpec":"* * * * *","replicas":11}`, `spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10`},
		{"enum", `{"cronSpec":"* * * * *","mode":"other"}`, `spec.mode: Unsupported value: "other": supported values: "fast", "slow"`},
		{"type", `{"cronSpec":"* * * * *","replicas":"many"}`, `spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"`},
		{"rule", `{"cronSpec":"* * * * *","replicas":2,"minReplicas":4}`, `spec: Invalid value: these are too few`},
		{"set", `{"cronSpec":"* * * * *","hosts":["a","a"]}`, `spec.hosts[1]: Duplicate value: "a"`},
		{"map", `{"cronSpec":"* * * * *","rules":[{"name":"x"},{"name":"x"}]}`, `spec.rules[1]: Duplicate value: {"name":"x"}`},
		{"int or string", `{"cronSpec":"* * * * *","port":1.5}`, `spec.port: Invalid value: "number": spec.port in body must be of type integer,string: "number"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, doc, _ := c.do("POST", tabs, jsonType, tab("x", tc.spec))
			text, _ := doc["message"].(string)
			if code != 422 || !strings.Contains(text, tc.want) || !strings.HasPrefix(text, `CronTab.stable.example.com "x" is invalid: `) {
				t.Errorf("answer %d\n%s\nwant\n%s", code, text, tc.want)
			}
		})
	}
	c.do("POST", tabs, jsonType, tab("i", `{"cronSpec":"* * * * *"}`))
	code, doc, _ := c.do("PATCH", tabs+"/i", "application/merge-patch+json", `{"spec":{"image":"other"}}`)
	if text, _ := doc["message"].(string); code != 422 || !strings.Contains(text, `spec.image: Invalid value: "other": Value is immutable`) {
		t.Errorf("transition rule: %d %v", code, text)
	}
}

func TestUnknownFieldsOfCustomResources(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	body := tab("u", `{"cronSpec":"* * * * *","cronSpec":"1 * * * *","foo":1,"rules":[{"name":"a","bar":2}]}`)
	code, doc, _ := c.do("POST", tabs+"?fieldValidation=Strict", jsonType, body)
	want := `strict decoding error: duplicate field "spec.cronSpec", unknown field "spec.foo", unknown field "spec.rules[0].bar"`
	if text, _ := doc["message"].(string); code != 400 || !strings.Contains(text, want) {
		t.Errorf("strict: %d %v", code, text)
	}
	code, _, head := c.do("POST", tabs, jsonType, body)
	if code != 201 || len(head.Values("Warning")) != 3 {
		t.Errorf("warn: %d %v", code, head.Values("Warning"))
	}
	if _, _, head = c.do("PUT", tabs+"/u?fieldValidation=Ignore", jsonType, body); len(head.Values("Warning")) != 0 {
		t.Errorf("ignore: %v", head.Values("Warning"))
	}
	if _, doc, _ = c.do("POST", tabs, jsonType, `{"metadata":{"name":"bare"},"spec":{"cronSpec":"* * * * *","foo":1}}`); at(doc, "kind") != "CronTab" || at(doc, "spec.foo") != nil {
		t.Errorf("without a kind: %v", doc)
	}
	if code, _, _ = c.do("POST", tabs, "application/vnd.kubernetes.protobuf", "k8s\x00"); code != 415 {
		t.Errorf("protobuf: %d", code)
	}
	if code, _, _ = c.do("PATCH", tabs+"/u", "application/strategic-merge-patch+json", `{}`); code != 415 {
		t.Errorf("strategic merge: %d", code)
	}
}

func TestCustomResourcesAreApplied(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	apply := func(manager, spec string, force bool) (int, map[string]any) {
		code, doc, _ := c.do("PATCH", fmt.Sprintf("%s/a?fieldManager=%s&force=%v", tabs, manager, force), "application/apply-patch+yaml", tab("a", spec))
		return code, doc
	}
	if code, doc := apply("one", `{"cronSpec":"* * * * *","rules":[{"name":"x","value":"1"}],"hosts":["a"]}`, false); code != 201 {
		t.Fatalf("apply: %d %v", code, doc)
	}
	code, doc := apply("two", `{"rules":[{"name":"y","value":"2"}],"hosts":["b"]}`, false)
	if code != 200 || fmt.Sprint(at(doc, "spec.hosts")) != "[a b]" || len(at(doc, "spec.rules").([]any)) != 2 {
		t.Errorf("lists merge: %d %v", code, at(doc, "spec"))
	}
	if code, doc = apply("two", `{"rules":[{"name":"x","value":"3"}]}`, false); code != 409 || !strings.Contains(fmt.Sprint(doc["message"]), `conflict with "one": .spec.rules[name="x"].value`) {
		t.Errorf("conflict: %d %v", code, doc["message"])
	}
	if code, doc = apply("two", `{"rules":[{"name":"x","value":"3"}]}`, true); code != 200 || len(at(doc, "spec.rules").([]any)) != 1 {
		t.Errorf("forced: %d %v", code, at(doc, "spec"))
	}
	if code, doc = apply("one", `{"cronSpec":"* * * * *","nonsense":1}`, true); code != 500 || !strings.Contains(fmt.Sprint(doc["message"]), `.spec.nonsense: field not declared in schema`) {
		t.Errorf("undeclared: %d %v", code, doc["message"])
	}
}

func TestDefinitionsArePublished(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	_, doc, _ := c.do("GET", "/apis/stable.example.com/v1", "", "")
	var names []string
	for _, r := range doc["resources"].([]any) {
		names = append(names, fmt.Sprint(at(r.(map[string]any), "name")))
	}
	if fmt.Sprint(names) != "[crontabs crontabs/scale crontabs/status]" {
		t.Errorf("discovery %v", names)
	}
	_, doc, _ = c.do("GET", "/openapi/v3/apis/stable.example.com/v1", "", "")
	schemas := at(doc, "components.schemas").(map[string]any)
	one, _ := schemas["com.example.stable.v1.CronTab"].(map[string]any)
	if at(one, "properties.spec.properties.replicas.maximum") != float64(10) || schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"] == nil {
		t.Errorf("OpenAPI v3: %v", one)
	}
	paths, _ := doc["paths"].(map[string]any)
	patch, _ := json.Marshal(at(paths["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"].(map[string]any), "patch"))
	if strings.Contains(string(patch), "strategic") || !strings.Contains(string(patch), "apply-patch") {
		t.Errorf("patch %s", patch)
	}
	_, doc, _ = c.do("GET", "/openapi/v2", "", "")
	if defs := doc["definitions"].(map[string]any); defs["com.example.stable.v1.CronTab"] == nil || defs["com.example.stable.v1.CronTabList"] == nil {
		t.Error("OpenAPI v2 lacks the kind")
	}
}

func TestADefinitionTakesItsObjectsAlong(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	c.do("POST", tabs, jsonType, strings.Replace(tab("held", `{"cronSpec":"* * * * *"}`), `"name":"held"`, `"name":"held","finalizers":["example.com/hold"]`, 1))
	c.do("POST", tabs, jsonType, tab("free", `{"cronSpec":"* * * * *"}`))
	code, doc, _ := c.do("DELETE", crds+"/crontabs.stable.example.com", "", "")
	if code != 200 || c.condition(doc, "Terminating") != "True InstanceDeletionPending" || fmt.Sprint(at(doc, "metadata.finalizers")) != "[customresourcecleanup.apiextensions.k8s.io]" {
		t.Fatalf("delete: %d %v", code, doc)
	}
	within(t, "the free one goes", func() bool { code, _, _ := c.do("GET", tabs+"/free", "", ""); return code == 404 })
	within(t, "no new ones are taken", func() bool {
		code, doc, _ := c.do("POST", tabs, jsonType, tab("late", `{"cronSpec":"* * * * *"}`))
		return code == 403 && strings.Contains(fmt.Sprint(doc["message"]), "create not allowed while custom resource definition is terminating")
	})
	if code, _, _ := c.do("GET", tabs+"/held", "", ""); code != 200 {
		t.Fatalf("the held one is gone: %d", code)
	}
	c.do("PATCH", tabs+"/held", "application/merge-patch+json", `{"metadata":{"finalizers":null}}`)
	within(t, "the definition goes", func() bool {
		code, _, _ := c.do("GET", crds+"/crontabs.stable.example.com", "", "")
		return code == 404
	})
	within(t, "the kind goes", func() bool { code, _, _ := c.do("GET", tabs, "", ""); return code == 404 })
	c.define(crontabs) // and may come again
	if _, doc, _ := c.do("GET", tabs, "", ""); len(doc["items"].([]any)) != 0 {
		t.Errorf("objects of a former life: %v", doc)
	}
}

func TestNamesBelongToTheFirst(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	other := strings.NewReplacer("name: crontabs.stable", "name: tabs.stable", "plural: crontabs", "plural: tabs", "singular: crontab,", "singular: tab,").Replace(crontabs)
	if code, doc, _ := c.do("POST", crds, "application/yaml", other); code != 201 {
		t.Fatal(code, doc)
	}
	var doc map[string]any
	within(t, "names are judged", func() bool {
		_, doc, _ = c.do("GET", crds+"/tabs.stable.example.com", "", "")
		return c.condition(doc, "NamesAccepted") != ""
	})
	if c.condition(doc, "NamesAccepted") != "False ListKindConflict" || c.condition(doc, "Established") != "False NotAccepted" {
		t.Errorf("conditions %v", at(doc, "status.conditions"))
	}
	if code, _, _ := c.do("GET", strings.Replace(tabs, "crontabs", "tabs", 1), "", ""); code != 404 {
		t.Errorf("served: %d", code)
	}
	c.do("DELETE", crds+"/crontabs.stable.example.com", "", "")
	within(t, "the second gets them", func() bool {
		_, doc, _ = c.do("GET", crds+"/tabs.stable.example.com", "", "")
		return c.condition(doc, "Established") == "True InitialNamesAccepted"
	})
}

// realTab has about the size of a real custom resource.
func realTab(name string) string {
	rules := make([]string, 10)
	for i := range rules {
		rules[i] = fmt.Sprintf(`{"name":"rule-%d","value":"a value of some length, number %d, and then some"}`, i, i)
	}
	return tab(name, `{"cronSpec":"* * * * */5","image":"registry/app:v1","replicas":3,"minReplicas":1,"hosts":["a.example.com","b.example.com"],"rules":[`+strings.Join(rules, ",")+`]}`)
}

// processorTime is what this process has used: other than the time that passes,
// it does not depend on what else the computer does.
func processorTime() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkCustomResource holds the costs of a custom resource against those of
// a ConfigMap of its size.
func BenchmarkCustomResource(b *testing.B) {
	c := newCustomServer(b)
	c.define(crontabs)
	value := strings.Repeat("x", 1024)
	spent := map[string]float64{}
	var last *httptest.ResponseRecorder
	measure := func(name string, ask func(i int) *http.Request, want int) {
		i := 0
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime()
			for b.Loop() {
				w := httptest.NewRecorder()
				c.h.ServeHTTP(w, ask(i))
				if i++; w.Code != want {
					b.Fatal(w.Code, w.Body)
				}
				last = w
			}
			spent[name] = float64(processorTime()-before) / float64(b.N)
		})
	}
	measure("create ConfigMap", func(i int) *http.Request {
		return request("POST", base+"configmaps", configJSON(fmt.Sprint("c", i), value))
	}, 201)
	measure("create CronTab", func(i int) *http.Request { return request("POST", tabs, realTab(fmt.Sprint("c", i))) }, 201)
	measure("get ConfigMap", func(int) *http.Request { return request("GET", base+"configmaps/c0", "") }, 200)
	measure("get CronTab", func(int) *http.Request { return request("GET", tabs+"/c0", "") }, 200)
	measure("patch ConfigMap", func(i int) *http.Request {
		r := request("PATCH", base+"configmaps/c0", fmt.Sprintf(`{"data":{"k":"%d"}}`, i))
		r.Header.Set("Content-Type", "application/merge-patch+json")
		return r
	}, 200)
	measure("patch CronTab", func(i int) *http.Request {
		r := request("PATCH", tabs+"/c0", fmt.Sprintf(`{"spec":{"replicas":%d}}`, 1+i%9))
		r.Header.Set("Content-Type", "application/merge-patch+json")
		return r
	}, 200)
	// updating is a client that read the object before, as they do.
	updating := func(path string, doc func(i int) string) func(int) *http.Request {
		i := 0
		return func(n int) *http.Request {
			if i++; n == 0 {
				last = httptest.NewRecorder()
				c.h.ServeHTTP(last, request("GET", path, ""))
			}
			_, version, _ := strings.Cut(last.Body.String(), `"resourceVersion":"`)
			version, _, _ = strings.Cut(version, `"`)
			return request("PUT", path, strings.Replace(doc(i), `"metadata":{`, `"metadata":{"resourceVersion":"`+version+`",`, 1))
		}
	}
	measure("update ConfigMap", updating(base+"configmaps/c0", func(i int) string { return configJSON("c0", value+fmt.Sprint(i)) }), 200)
	measure("update CronTab", updating(tabs+"/c0", func(i int) string {
		return strings.Replace(realTab("c0"), `"replicas":3`, fmt.Sprintf(`"replicas":%d`, 1+i%9), 1)
	}), 200)
	list := func(path string) func(int) *http.Request {
		return func(int) *http.Request { return request("GET", path+"?limit=500", "") }
	}
	measure("list ConfigMap", list(base+"configmaps"), 200)
	measure("list CronTab", list(tabs), 200)
	for kind, path := range map[string]string{"ConfigMap": base + "configmaps", "CronTab": tabs} {
		b.Run("watch "+kind, func(b *testing.B) {
			before, events := processorTime(), 0
			for b.Loop() {
				events += follow(b, c.h, path+"?watch=1&resourceVersion=0", 500)
			}
			spent["watch "+kind] = float64(processorTime()-before) / float64(events)
		})
	}
	measure("create Deployment", func(i int) *http.Request {
		return request("POST", "/apis/apps/v1/namespaces/default/deployments", richDeployment(fmt.Sprint("d", i)))
	}, 201)
	measure("patch Deployment", func(i int) *http.Request {
		r := request("PATCH", "/apis/apps/v1/namespaces/default/deployments/d0", fmt.Sprintf(`{"spec":{"replicas":%d}}`, 1+i%9))
		r.Header.Set("Content-Type", "application/merge-patch+json")
		return r
	}, 200)
	for _, built := range []string{"ConfigMap", "Deployment"} {
		ratios := map[string]any{"bench": "custom resource / " + built + ", processor time"}
		for _, verb := range []string{"create", "get", "patch", "update", "list", "watch"} {
			if of := spent[verb+" "+built]; of > 0 && spent[verb+" CronTab"] > 0 {
				ratios[verb] = float64(int(100*spent[verb+" CronTab"]/of)) / 100
			}
		}
		line, _ := json.Marshal(ratios)
		fmt.Println(string(line))
	}
}

// follow watches until so many events came, and returns how many did.
func follow(b *testing.B, h http.Handler, path string, most int) int {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	w := &countingWriter{header: http.Header{}, most: most, enough: cancel}
	h.ServeHTTP(w, request("GET", path, "").WithContext(ctx))
	if w.events == 0 {
		b.Fatal("no event came")
	}
	return w.events
}

// countingWriter counts the lines of an answer, and ends it when there are enough.
type countingWriter struct {
	header       http.Header
	events, most int
	enough       func()
}

func (w *countingWriter) Header() http.Header { return w.header }
func (w *countingWriter) WriteHeader(int)     {}
func (w *countingWriter) Flush()              {}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.events += bytes.Count(p, []byte("\n")); w.events >= w.most {
		w.enough()
	}
	return len(p), nil
}

// richDeployment is a built-in with about as many fields as realTab.
func richDeployment(name string) string {
	env := make([]string, 10)
	for i := range env {
		env[i] = fmt.Sprintf(`{"name":"RULE_%d","value":"a value of some length, number %d, and then some"}`, i, i)
	}
	return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"` + name + `"},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"x"}},"template":{"metadata":{"labels":{"app":"x"}},` +
		`"spec":{"containers":[{"name":"c","image":"registry/app:v1","env":[` + strings.Join(env, ",") + `]}]}}}}`
}

// A change of one definition is no affair of another's watchers; the changed
// kind's begin anew.
func TestWatchesOutliveOthersDefinitions(t *testing.T) {
	c := newCustomServer(t)
	c.define(crontabs)
	c.define(strings.Replace(boats, "CONVERSION", "{strategy: None}", 1))
	boatsEnd := make(chan []map[string]any, 1)
	got := frames(t, c.h, tabs+"?watch=1", 1, func() {
		go func() {
			boatsEnd <- frames(t, c.h, boatsV1+"?watch=1", 2, func() { c.do("POST", boatsV1, jsonType, boat("v1", "b", `"feet":3`)) })
		}()
		within(t, "the boat is there", func() bool { code, _, _ := c.do("GET", boatsV1+"/b", "", ""); return code == 200 })
		c.do("PATCH", crds+"/boats.sea.example.com", "application/json-patch+json", `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/sails","value":{"type":"integer"}}]`)
		select {
		case seen := <-boatsEnd:
			if s := story(seen); s != "ADDED b; " {
				t.Errorf("the watch of boats saw %s", s)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the watch of the changed kind goes on")
		}
		c.do("POST", tabs, jsonType, tab("late", `{"cronSpec":"* * * * *"}`))
	})
	if s := story(got); s != "ADDED late; " {
		t.Errorf("the watch of crontabs saw %s", s)
	}
	if code, doc, _ := c.do("POST", boatsV1, jsonType, boat("v1", "c", `"sails":2`)); code != 201 || doc["sails"] != float64(2) {
		t.Errorf("after the change: %d %v", code, doc)
	}
	gone := frames(t, c.h, tabs+"?watch=1", 3, func() { c.do("DELETE", crds+"/crontabs.stable.example.com", "", "") })
	if s := story(gone); s != "ADDED late; DELETED late; " {
		t.Errorf("the watch of a kind that goes saw %s", s)
	}
}

package apiserver_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/admission"
	"github.com/sampan-dev/sampan/apiserver/apply"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/openapi"
	"github.com/sampan-dev/sampan/apiserver/policy"
	plug "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/webhook"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource/all"
)

// judged is a server whose users take part in admission.
func judged(t testing.TB) client {
	t.Helper()
	registry := rest.NewRegistry(all.Kinds())
	fields := apply.New(openapi.NewMerger())
	e := rest.New(rest.Deps{Store: cached(t, registry), Registry: registry, Fields: fields})
	deps := dynamic.Deps{Back: e.Backend(), Catalog: registry}
	hooks, err := webhook.New(webhook.Config{Rest: time.Minute}, deps, nil)
	if err != nil {
		t.Fatal(err)
	}
	policies := policy.New(deps, policy.Types{Schema: openapi.Schemas(registry.Kinds), Merge: fields.Merging(registry.Kinds)}, nil)
	if e.Admission, _, err = admission.Choose(admission.Deps{Back: e.Backend(), More: map[string]plug.Plugin{
		webhook.MutatingName: webhook.Mutating{Webhooks: hooks}, webhook.ValidatingName: webhook.Validating{Webhooks: hooks},
		policy.MutatingName: policy.Mutating{Policies: policies}, policy.ValidatingName: policy.Validating{Policies: policies},
	}}, nil, []string{"ServiceAccount"}); err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("hooks", hooks.Run)
	g.Go("policies", policies.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: e, Authn: []plug.Authenticator{named{}}, OpenAPI: openapi.New(registry.Kinds)})
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, s.Handler()}
	c.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"default","labels":{"team":"a"}}}`)
	return c
}

// named says who asks by a header; without it, it is an administrator.
type named struct{}

func (named) Authenticate(r *http.Request) (*plug.User, bool, error) {
	if u := r.Header.Get("X-Test-User"); u != "" {
		return &plug.User{Name: u, Groups: r.Header.Values("X-Test-Group")}, true, nil
	}
	return &plug.User{Name: "admin", Groups: []string{plug.Masters}}, true, nil
}

// as is the same client as somebody else.
func (c client) as(user string, groups ...string) client {
	h := c.h
	return client{c.t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Test-User", user)
		r.Header["X-Test-Group"] = groups
		h.ServeHTTP(w, r)
	})}
}

// must asks and insists on the code.
func (c client) must(code int, method, path, body string) map[string]any {
	c.t.Helper()
	kind := "application/json"
	if method == "PATCH" {
		kind = "application/merge-patch+json"
	}
	got, out, _ := c.do(method, path, kind, body)
	if got != code {
		c.t.Fatalf("%s %s: %d %v", method, path, got, out["message"])
	}
	return out
}

// answerer is a webhook whose answers a test thinks up.
type answerer struct {
	*httptest.Server
	mu    sync.Mutex
	asked []map[string]any
}

// answers serves a webhook; reply gets the request part of the review.
func answers(t testing.TB, reply func(rq map[string]any) map[string]any) *answerer {
	a := &answerer{}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var review map[string]any
		json.Unmarshal(body, &review)
		rq, _ := review["request"].(map[string]any)
		a.mu.Lock()
		a.asked = append(a.asked, rq)
		a.mu.Unlock()
		out := reply(rq)
		if out == nil {
			http.Error(w, "no mood", http.StatusInternalServerError)
			return
		}
		if out["uid"] == nil {
			out["uid"] = rq["uid"]
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": out})
	}))
	a.Server.Config.ErrorLog = nil
	t.Cleanup(a.Server.Close)
	return a
}

func (a *answerer) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func (a *answerer) last() map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[len(a.asked)-1]
}

// config is a configuration with one hook that asks a about what rule says.
func (a *answerer) config(kind, name, rule, more string) string {
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}))
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":%q,"metadata":{"name":%q},"webhooks":[{"name":"%s.example.com",
		"clientConfig":{"url":%q,"caBundle":%q},"rules":[%s],"sideEffects":"None","admissionReviewVersions":["v1"]%s}]}`, kind, name, name, a.URL+"/ask", ca, rule, more)
}

const (
	mutatingPath   = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	validatingPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	anyConfigMap   = `{"operations":["*"],"apiGroups":[""],"apiVersions":["v1"],"resources":["configmaps"]}`
)

// eventually tries until ok, for configurations take a moment to be noticed.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 10_000 {
		if ok() {
			return
		}
		if clock.Sleep(t.Context(), 10*time.Millisecond) != nil {
			break
		}
	}
	t.Fatalf("never: %s", what)
}

const configMaps = "/api/v1/namespaces/default/configmaps"

func allow(map[string]any) map[string]any { return map[string]any{"allowed": true} }

// noticed waits until a dry run for a config map reaches the hook.
func (c client) noticed(a *answerer) {
	c.t.Helper()
	eventually(c.t, "the hook is asked", func() bool {
		c.do("POST", configMaps+"?dryRun=All", "application/json", configJSON("probe", "x"))
		return a.count() > 0
	})
}

func TestAWebhookDenies(t *testing.T) {
	c := judged(t)
	a := answers(t, func(rq map[string]any) map[string]any {
		if rq["name"] == "bad" {
			return map[string]any{"allowed": false, "status": map[string]any{"message": "not here", "code": 418}, "warnings": []string{"careful"}}
		}
		return allow(rq)
	})
	c.must(201, "POST", validatingPath, a.config("ValidatingWebhookConfiguration", "deny", anyConfigMap, ""))
	c.noticed(a)
	code, out, header := c.do("POST", configMaps, "application/json", configJSON("bad", "x"))
	if want := `admission webhook "deny.example.com" denied the request: not here`; code != 418 || out["message"] != want {
		t.Errorf("got %d %v, want %s", code, out["message"], want)
	}
	if w := header.Get("Warning"); w != `299 - "careful"` {
		t.Errorf("warning %q", w)
	}
	c.must(201, "POST", configMaps, configJSON("good", "x"))
	rq := a.last()
	for path, want := range map[string]any{
		"operation": "CREATE", "name": "good", "namespace": "default", "kind.kind": "ConfigMap", "resource.resource": "configmaps",
		"requestKind.version": "v1", "object.data.k": nil, "object.kind": "ConfigMap", "options.kind": "CreateOptions", "options.apiVersion": "meta.k8s.io/v1", "dryRun": false,
	} {
		if got := at(rq, path); got != want && path != "object.data.k" {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if rq["oldObject"] != nil {
		t.Errorf("old object on create: %v", rq["oldObject"])
	}
	c.must(200, "DELETE", configMaps+"/good", "")
	if rq = a.last(); at(rq, "operation") != "DELETE" || at(rq, "oldObject.metadata.name") != "good" || rq["object"] != nil {
		t.Errorf("delete asked %v", rq)
	}
	// The configuration itself can always be removed.
	c.must(200, "DELETE", validatingPath+"/deny", "")
}

func patch(ops string) map[string]any {
	return map[string]any{"allowed": true, "patchType": "JSONPatch", "patch": base64.StdEncoding.EncodeToString([]byte(ops))}
}

func TestAWebhookMutates(t *testing.T) {
	c := judged(t)
	a := answers(t, func(map[string]any) map[string]any { return patch(`[{"op":"add","path":"/data/added","value":"yes"}]`) })
	c.must(201, "POST", mutatingPath, a.config("MutatingWebhookConfiguration", "add", anyConfigMap, ""))
	c.noticed(a)
	out := c.must(201, "POST", configMaps, configJSON("a", "x"))
	if got := at(out, "data.added"); got != "yes" {
		t.Errorf("data %v", out["data"])
	}
}

func TestADeadWebhook(t *testing.T) {
	c := judged(t)
	alive := answers(t, allow)
	c.must(201, "POST", validatingPath, alive.config("ValidatingWebhookConfiguration", "probe", anyConfigMap, ""))
	dead := answers(t, allow)
	dead.Close()
	c.must(201, "POST", validatingPath, dead.config("ValidatingWebhookConfiguration", "open", anyConfigMap, `"failurePolicy":"Ignore"`))
	c.noticed(alive)
	for i := range 10 { // after some failures it is not tried any more
		c.must(201, "POST", configMaps, configJSON(fmt.Sprintf("a%d", i), "x"))
	}
	c.must(201, "POST", validatingPath, dead.config("ValidatingWebhookConfiguration", "shut", anyConfigMap, ""))
	eventually(t, "fails closed", func() bool {
		code, out, _ := c.do("POST", configMaps+"?dryRun=All", "application/json", configJSON("closed", "x"))
		if code == 201 {
			return false
		}
		msg, _ := out["message"].(string)
		for _, want := range []string{
			`Internal error occurred: failed calling webhook "shut.example.com": failed to call webhook: Post "` + dead.URL + `/ask?timeout=10s": dial tcp `,
			"connection refused", "kubectl delete validatingwebhookconfigurations shut",
		} {
			if !strings.Contains(msg, want) {
				t.Errorf("%d %s\nlacks %s", code, msg, want)
			}
		}
		return code == 500
	})
}

func TestAWebhookSeesTheVersionItAskedFor(t *testing.T) {
	c := judged(t)
	rule := `{"operations":["CREATE"],"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments","deployments/scale"]}`
	a := answers(t, func(rq map[string]any) map[string]any {
		if at(rq, "kind.kind") == "Scale" {
			return allow(rq)
		}
		return patch(`[{"op":"replace","path":"/spec/replicas","value":4},{"op":"add","path":"/spec/template/spec/initContainers","value":[{"name":"i","image":"x"}]}]`)
	})
	exact := answers(t, allow)
	c.must(201, "POST", mutatingPath, a.config("MutatingWebhookConfiguration", "wide", rule, ""))
	c.must(201, "POST", mutatingPath, exact.config("MutatingWebhookConfiguration", "exact", rule, `"matchPolicy":"Exact"`))
	var out map[string]any
	eventually(t, "the hook is asked", func() bool {
		_, out, _ = c.do("POST", "/apis/extensions/v1beta1/namespaces/default/deployments?dryRun=All", "application/json", deploymentJSON("extensions/v1beta1", "one", 1))
		return a.count() > 0
	})
	if at(out, "spec.replicas") != float64(4) || out["apiVersion"] != "extensions/v1beta1" {
		t.Errorf("got %v", out)
	}
	// What the patch left out has the usual defaults.
	init, _ := at(out, "spec.template.spec.initContainers").([]any)
	if len(init) != 1 || at(init[0].(map[string]any), "terminationMessagePath") != "/dev/termination-log" {
		t.Errorf("no defaults after the patch: %v", init)
	}
	rq := a.last()
	for path, want := range map[string]any{
		"kind.group": "apps", "kind.version": "v1", "requestKind.group": "extensions", "requestKind.version": "v1beta1", "requestResource.group": "extensions",
		"resource.group": "apps", "object.apiVersion": "apps/v1", "dryRun": true,
	} {
		if got := at(rq, path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if exact.count() != 0 {
		t.Error("a hook that asked for one version only saw another")
	}
}

func TestAWebhookOfScales(t *testing.T) {
	c := judged(t)
	a := answers(t, func(rq map[string]any) map[string]any {
		if at(rq, "object.spec.replicas") == float64(9) {
			return map[string]any{"allowed": false}
		}
		return patch(`[{"op":"replace","path":"/spec/replicas","value":3}]`)
	})
	c.must(201, "POST", deployments, deploymentJSON("apps/v1", "one", 1))
	c.must(201, "POST", mutatingPath, a.config("MutatingWebhookConfiguration", "scales",
		`{"operations":["UPDATE"],"apiGroups":["apps"],"apiVersions":["v1"],"resources":["deployments/scale"]}`, ""))
	var out map[string]any
	eventually(t, "the hook is asked", func() bool {
		_, out, _ = c.do("PATCH", deployments+"/one/scale", "application/merge-patch+json", `{"spec":{"replicas":2}}`)
		return a.count() > 0
	})
	if at(out, "spec.replicas") != float64(3) || out["kind"] != "Scale" {
		t.Errorf("got %v", out)
	}
	if rq := a.last(); at(rq, "kind.kind") != "Scale" || at(rq, "subResource") != "scale" || at(rq, "oldObject.kind") != "Scale" {
		t.Errorf("asked %v", rq)
	}
	code, out, _ := c.do("PATCH", deployments+"/one/scale", "application/merge-patch+json", `{"spec":{"replicas":9}}`)
	if want := `admission webhook "scales.example.com" denied the request without explanation`; code != 400 || out["message"] != want {
		t.Errorf("%d %v", code, out["message"])
	}
}

// TestHooksAreAskedAgain: a hook that wants to know of later changes is asked a
// second time when a later hook changed something.
func TestHooksAreAskedAgain(t *testing.T) {
	c := judged(t)
	first := answers(t, func(rq map[string]any) map[string]any {
		if _, there := at(rq, "object.data").(map[string]any)["second"]; there {
			return patch(`[{"op":"add","path":"/data/saw","value":"second"}]`)
		}
		return allow(rq)
	})
	second := answers(t, func(map[string]any) map[string]any {
		return patch(`[{"op":"add","path":"/data/second","value":"here"}]`)
	})
	c.must(201, "POST", mutatingPath, first.config("MutatingWebhookConfiguration", "a", anyConfigMap, `"reinvocationPolicy":"IfNeeded"`))
	c.must(201, "POST", mutatingPath, second.config("MutatingWebhookConfiguration", "b", anyConfigMap, ""))
	c.noticed(first)
	c.noticed(second)
	before, beforeSecond := first.count(), second.count()
	out := c.must(201, "POST", configMaps, configJSON("x", "y"))
	if at(out, "data.saw") != "second" {
		t.Errorf("data %v", out["data"])
	}
	if n := first.count() - before; n != 2 {
		t.Errorf("the first hook was asked %d times", n)
	}
	if n := second.count() - beforeSecond; n != 1 {
		t.Errorf("the second hook was asked %d times", n)
	}
}

func TestDryRunsSpareHooksWithEffects(t *testing.T) {
	c := judged(t)
	a := answers(t, allow)
	config := strings.Replace(a.config("ValidatingWebhookConfiguration", "acts", anyConfigMap, ""), `"apiVersion":"admissionregistration.k8s.io/v1"`, `"apiVersion":"admissionregistration.k8s.io/v1beta1"`, 1)
	config = strings.Replace(config, `"sideEffects":"None"`, `"sideEffects":"Some"`, 1)
	c.must(201, "POST", "/apis/admissionregistration.k8s.io/v1beta1/validatingwebhookconfigurations", config)
	eventually(t, "the hook is asked", func() bool {
		c.do("POST", configMaps, "application/json", configJSON("probe", "x"))
		c.do("DELETE", configMaps+"/probe", "", "")
		return a.count() > 0
	})
	code, out, _ := c.do("POST", configMaps+"?dryRun=All", "application/json", configJSON("a", "x"))
	if want := `admission webhook "acts.example.com" does not support dry run`; code != 400 || out["message"] != want {
		t.Errorf("%d %v", code, out["message"])
	}
	out = c.must(200, "GET", validatingPath+"/acts", "")
	hook := out["webhooks"].([]any)[0].(map[string]any)
	if hook["failurePolicy"] != "Ignore" || hook["matchPolicy"] != "Exact" || hook["timeoutSeconds"] != float64(30) {
		t.Errorf("v1beta1 had other defaults: %v", hook)
	}
}

func TestMatchConditionsAndSelectors(t *testing.T) {
	c := judged(t)
	c.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"other"}}`)
	a := answers(t, allow)
	c.must(201, "POST", validatingPath, a.config("ValidatingWebhookConfiguration", "some", anyConfigMap,
		`"namespaceSelector":{"matchLabels":{"team":"a"}},"objectSelector":{"matchLabels":{"watch":"me"}},
		"matchConditions":[{"name":"not-leases","expression":"request.name != 'skip'"},{"name":"has-data","expression":"request.operation == 'DELETE' || has(object.data)"}]`))
	ask := func(namespace, name, label string) int {
		before := a.count()
		c.do("POST", "/api/v1/namespaces/"+namespace+"/configmaps?dryRun=All", "application/json",
			fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"watch":%q}},"data":{"k":"v"}}`, name, label))
		return a.count() - before
	}
	eventually(t, "the hook is asked", func() bool { return ask("default", "x", "me") == 1 })
	for _, quiet := range [][3]string{{"other", "x", "me"}, {"default", "x", "you"}, {"default", "skip", "me"}} {
		if ask(quiet[0], quiet[1], quiet[2]) != 0 {
			t.Errorf("asked about %v", quiet)
		}
	}
	code, out, _ := c.do("POST", validatingPath, "application/json", a.config("ValidatingWebhookConfiguration", "bad", anyConfigMap, `"matchConditions":[{"name":"x","expression":"object.foo ="}]`))
	if msg, _ := out["message"].(string); code != 422 || !strings.Contains(msg, `webhooks[0].matchConditions[0].expression: Invalid value: "object.foo =": compilation failed: ERROR: <input>:1:12: Syntax error`) {
		t.Errorf("%d %v", code, out["message"])
	}
}

// TestMendingADeadHook: a hook that fails closed and is gone keeps away neither
// the pods that would bring it back nor the heartbeats of nodes.
func TestMendingADeadHook(t *testing.T) {
	c := judged(t)
	c.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"hooks"}}`)
	c.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"kube-node-lease"}}`)
	c.must(201, "POST", "/api/v1/namespaces/hooks/services", `{"metadata":{"name":"hook"},"spec":{"clusterIP":"None","selector":{"app":"hook"},"ports":[{"port":443}]}}`)
	c.must(201, "POST", validatingPath, `{"metadata":{"name":"all"},"webhooks":[{"name":"all.example.com","sideEffects":"None","admissionReviewVersions":["v1"],
		"clientConfig":{"service":{"namespace":"hooks","name":"hook","path":"/v"}},"rules":[{"operations":["*"],"apiGroups":["*"],"apiVersions":["*"],"resources":["*"]}]}]}`)
	pod := func(app string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"app":%q}},"spec":{"containers":[{"name":"c","image":"i"}]}}`, app, app)
	}
	pods := "/api/v1/namespaces/hooks/pods"
	var out map[string]any
	code := 0
	eventually(t, "the hook is missed", func() bool {
		code, out, _ = c.do("POST", pods+"?dryRun=All", "application/json", pod("other"))
		return code == 500
	})
	want := `Internal error occurred: failed calling webhook "all.example.com": failed to call webhook: Post "https://hook.hooks.svc:443/v?timeout=10s": no endpoints available for service "hook"` +
		`; ValidatingWebhookConfiguration "all" asks service hooks/hook about such requests and fails them (failurePolicy: Fail) while there is no answer: mend it, or run: kubectl delete validatingwebhookconfigurations all`
	if out["message"] != want {
		t.Errorf("got  %v\nwant %s", out["message"], want)
	}
	c.must(201, "POST", pods, pod("hook"))
	lease := `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"n1","namespace":"kube-node-lease"},"spec":{"holderIdentity":"n1"}}`
	leases := "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	if code, _, _ := c.do("POST", leases, "application/json", lease); code != 500 {
		t.Errorf("somebody's lease went through: %d", code)
	}
	c.as("system:node:n1", plug.Nodes).must(201, "POST", leases, lease)
	c.must(200, "DELETE", validatingPath+"/all", "")
}

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
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: e, OpenAPI: openapi.New(registry.Kinds)})
	if err != nil {
		t.Fatal(err)
	}
	c := client{t, s.Handler()}
	c.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"default","labels":{"team":"a"}}}`)
	return c
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
	for range 500 {
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
		code, out, _ := c.do("POST", configMaps, "application/json", configJSON("closed", "x"))
		if code == 201 {
			c.must(200, "DELETE", configMaps+"/closed", "")
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

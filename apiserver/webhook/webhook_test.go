package webhook

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	reviewv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/dynamic"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
)

func TestVerdicts(t *testing.T) {
	answer := func(response string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":` + response + `}`
	}
	for _, c := range []struct {
		body, version string
		mutating      bool
		want          string
	}{
		{answer(`{"uid":"u","allowed":true}`), "v1", false, ""},
		{`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, "v1", false, "webhook response was absent"},
		{answer(`{"uid":"x","allowed":true}`), "v1", false, `expected response.uid="u", got "x"`},
		{`{"response":{"uid":"u","allowed":true}}`, "v1", false, `expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=`},
		{answer(`{"uid":"u","allowed":true,"patch":"W10="}`), "v1", false, "validating webhook may not return response.patch"},
		{answer(`{"uid":"u","allowed":true,"patchType":"JSONPatch"}`), "v1", false, "validating webhook may not return response.patchType"},
		{answer(`{"uid":"u","allowed":true,"patch":"W10="}`), "v1", true, "webhook returned response.patch but not response.patchType"},
		{answer(`{"uid":"u","allowed":true,"patchType":"JSONPatch"}`), "v1", true, "webhook returned response.patchType but not response.patch"},
		{answer(`{"uid":"u","allowed":true,"patch":"W10=","patchType":""}`), "v1", true, `webhook returned invalid response.patchType of ""`},
		{answer(`{"uid":"u","allowed":true,"patch":"W10=","patchType":"JSONPatch"}`), "v1", true, ""},
		{`{"response":{"allowed":true,"patch":"W10="}}`, "v1beta1", true, ""},
	} {
		_, err := readVerdict([]byte(c.body), c.version, "u", c.mutating)
		if got := fmt.Sprint(err); got != c.want && !(err == nil && c.want == "") {
			t.Errorf("%s: got %v, want %s", c.body, err, c.want)
		}
	}
}

func TestDenials(t *testing.T) {
	for _, c := range []struct {
		in   *metav1.Status
		code int32
		want string
	}{
		{nil, 400, `admission webhook "w" denied the request without explanation`},
		{&metav1.Status{Code: 403, Message: "no", Status: "Success"}, 403, `admission webhook "w" denied the request: no`},
		{&metav1.Status{Code: 200, Reason: "Because"}, 400, `admission webhook "w" denied the request: Because`},
	} {
		if got := denied("w", c.in).ErrStatus; got.Code != c.code || got.Message != c.want || got.Status != metav1.StatusFailure {
			t.Errorf("got %+v", got)
		}
	}
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Breaks: 2, Rest: time.Second, MaxRest: 3 * time.Second}
		b := &breaker{cfg: cfg}
		b.fail()
		if !b.allow() || b.tired() {
			t.Error("one failure is none")
		}
		b.fail()
		if b.allow() || !b.tired() {
			t.Error("a dead hook was asked")
		}
		time.Sleep(time.Second)
		if !b.allow() {
			t.Error("after a rest one may try")
		}
		if b.allow() {
			t.Error("only one may")
		}
		b.fail()
		time.Sleep(1500 * time.Millisecond)
		if b.allow() {
			t.Error("the rest did not grow")
		}
		time.Sleep(time.Second)
		if !b.allow() {
			t.Error("the rest grew too much")
		}
		b.succeeded()
		if !b.allow() || b.tired() {
			t.Error("a hook that is back was not asked")
		}
	})
}

// one knows config maps as they are.
type one struct{}

func (one) Spellings(of schema.GroupVersionResource, _ string) []request.Spelling {
	same := func(obj api.Object) (api.Object, error) { return obj, nil }
	return []request.Spelling{{
		Kind: schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Resource: of, Show: same,
		Store: func(shown, _ api.Object) (api.Object, error) { return shown, nil },
	}}
}

func (one) Resource(schema.GroupVersionKind) (request.Spelling, schema.GroupResource, bool, bool) {
	return request.Spelling{}, schema.GroupResource{}, false, false
}

func configMap(user *request.User) *request.Attributes {
	obj := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "c"}}
	return &request.Attributes{
		Operation: request.Create, Kind: schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, Object: obj, Namespace: "n", Name: "c", User: user,
		Resource: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Options: &metav1.CreateOptions{},
	}
}

// hooked has one validating hook per URL, with a timeout.
func hooked(t *testing.T, cfg Config, failure admissionv1.FailurePolicyType, seconds int32, urls ...string) *Webhooks {
	t.Helper()
	w, err := New(cfg, dynamic.Deps{Back: requesttest.New(), Catalog: one{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	none := admissionv1.SideEffectClassNone
	c := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "u", Generation: 1}}
	for i, u := range urls {
		c.Webhooks = append(c.Webhooks, admissionv1.ValidatingWebhook{
			Name: fmt.Sprintf("h%d", i), ClientConfig: admissionv1.WebhookClientConfig{URL: &u}, FailurePolicy: &failure, TimeoutSeconds: &seconds, SideEffects: &none,
			AdmissionReviewVersions: []string{"v1"},
			Rules:                   []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{"*"}, Rule: admissionv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"*/*"}}}},
		})
	}
	w.hooks.set(validatingKind, "c", c)
	return w
}

// TestBudget: a request waits for hooks that may be ignored no longer than its budget.
func TestBudget(t *testing.T) {
	stuck := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stuck:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(stuck)
	w := hooked(t, Config{Budget: 200 * time.Millisecond}, admissionv1.Ignore, 30, server.URL)
	for _, cfg := range w.caller.clients {
		cfg.CloseIdleConnections()
	}
	w.caller.clients = trusting(server)
	start := time.Now()
	a := configMap(nil)
	for range 3 { // as many hooks, one after the other
		q := &asking{w: w, r: w.deps.Of(a), op: "CREATE"}
		i, err := q.relevant(t.Context(), (*w.hooks.validating.Load())[0])
		if err != nil || i == nil {
			t.Fatalf("%v %v", i, err)
		}
		purse := ledgerOf(a)
		_, lost, err := q.outcome(t.Context(), i, purse.spent)
		purse.spent += lost
		if err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > 25*time.Second {
		t.Errorf("waited %v", took)
	}
}

// trusting is the client of a test server, under the key it will be asked for.
func trusting(s *httptest.Server) map[string]*http.Client {
	return map[string]*http.Client{strings.TrimPrefix(s.URL, "https://") + "\x00\x00url": s.Client()}
}

func TestFailuresInWords(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	}))
	defer server.Close()
	w := hooked(t, Config{}, admissionv1.Fail, 10, server.URL+"/x")
	w.caller.clients = trusting(server)
	err := Validating{w}.Validate(t.Context(), configMap(nil))
	want := `Internal error occurred: failed calling webhook "h0": failed to call webhook: an error on the server ("out of order") has prevented the request from succeeding`
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

// TestHooksAreShownWhoAsks: what is configured for a hook's host, and for its
// sort of hooks, is what the hook sees.
func TestHooksAreShownWhoAsks(t *testing.T) {
	seen := ""
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization")
		var review reviewv1.AdmissionReview
		json.NewDecoder(r.Body).Decode(&review)
		review.Response = &reviewv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		json.NewEncoder(w).Encode(review)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	shown := func(token string) Shown {
		return func(hostPort string) (func(*tls.CertificateRequestInfo) (*tls.Certificate, error), func(http.RoundTripper) http.RoundTripper, error) {
			if hostPort != host {
				return nil, nil, fmt.Errorf("asked for %s", hostPort)
			}
			return nil, func(rt http.RoundTripper) http.RoundTripper { return saying{token, rt} }, nil
		}
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	w := hooked(t, Config{ShownToValidating: shown("validating"), ShownToMutating: shown("mutating")}, admissionv1.Fail, 10, server.URL)
	for _, list := range w.hooks.compiled {
		for _, h := range list {
			h.client.CABundle = ca
		}
	}
	if err := (Validating{w}).Validate(t.Context(), configMap(nil)); err != nil || seen != "validating" {
		t.Errorf("saw %q, %v", seen, err)
	}
}

type saying struct {
	token string
	rt    http.RoundTripper
}

func (s saying) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", s.token)
	return s.rt.RoundTrip(r)
}

func TestHeartbeatsAreNotStopped(t *testing.T) {
	node := &request.User{Name: "system:node:n1", Groups: []string{request.Nodes}}
	manager := &request.User{Name: "system:serviceaccount:kube-system:endpointslice-controller"}
	for _, c := range []struct {
		user *request.User
		gr   string
		sub  string
		ns   string
		want bool
	}{
		{node, "leases.coordination.k8s.io", "", "kube-node-lease", true},
		{node, "leases.coordination.k8s.io", "", "default", false},
		{node, "nodes", "status", "", true},
		{node, "pods", "status", "n", true},
		{node, "pods", "", "n", false},
		{node, "serviceaccounts", "token", "n", true},
		{node, "secrets", "", "n", false},
		{manager, "endpointslices.discovery.k8s.io", "", "n", true},
		{&request.User{Name: "jane"}, "leases.coordination.k8s.io", "", "kube-node-lease", false},
		{&request.User{Name: "jane", Groups: []string{request.Masters}}, "nodes", "status", "", false},
		{&request.User{Name: "system:serviceaccount:evil:x-controller"}, "nodes", "", "", false},
	} {
		gr := schema.ParseGroupResource(c.gr)
		a := &request.Attributes{User: c.user, Resource: gr.WithVersion("v1"), Subresource: c.sub, Namespace: c.ns, Operation: request.Update}
		if got := heartbeat(a); got != c.want {
			t.Errorf("%s %s/%s in %q: %v", c.user.Name, c.gr, c.sub, c.ns, got)
		}
	}
}

func TestReach(t *testing.T) {
	ready, name, port := false, "https", int32(8443)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s-1", Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
		Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1"}}, {Addresses: []string{"10.1.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	}
	svc := func(name string, spec corev1.ServiceSpec) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: spec}
	}
	ports := []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromInt32(8443)}}
	r := reach{requesttest.New().
		With(schema.GroupResource{Resource: "services"}, svc("s", corev1.ServiceSpec{Ports: ports}), svc("empty", corev1.ServiceSpec{Ports: ports}),
			svc("far", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"})).
		With(schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}, slice)}
	for _, c := range []struct {
		name string
		port int32
		want string
	}{
		{"s", 443, "[10.1.0.1:8443] <nil>"},
		{"s", 80, `[] no service port 80 found for service "s"`},
		{"empty", 443, `[] no endpoints available for service "empty"`},
		{"far", 443, "[example.com:443] <nil>"},
		{"none", 443, `[] service "none" not found`},
	} {
		addrs, err := r.addresses(t.Context(), "n", c.name, c.port)
		if got := fmt.Sprint(addrs, " ", err); got != c.want {
			t.Errorf("%s:%d: got %s, want %s", c.name, c.port, got, c.want)
		}
	}
}

// FuzzAnswers: whatever a hook answers, the object stays an object of its kind
// or the request fails; nothing panics.
func FuzzAnswers(f *testing.F) {
	patch := func(ops string) string { return base64.StdEncoding.EncodeToString([]byte(ops)) }
	for _, s := range []string{
		`{"uid":"u","allowed":true}`,
		`{"uid":"u","allowed":false,"status":{"code":-1,"message":"x"}}`,
		`{"uid":"u","allowed":true,"patchType":"JSONPatch","patch":"` + patch(`[{"op":"add","path":"/data","value":{"a":"b"}}]`) + `"}`,
		`{"uid":"u","allowed":true,"patchType":"JSONPatch","patch":"` + patch(`[{"op":"remove","path":""},{"op":"copy","from":"","path":"/data/x"}]`) + `"}`,
		`{"uid":"u","allowed":true,"patchType":"JSONPatch","patch":"` + patch(`[{"op":"add","path":"/metadata/labels/-1","value":[[[]]]},null,{}]`) + `"}`,
	} {
		f.Add(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":` + s + `}`)
	}
	w, err := New(Config{}, dynamic.Deps{Back: requesttest.New(), Catalog: one{}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		v, err := readVerdict([]byte(body), "v1", "u", true)
		if err != nil {
			return
		}
		if !v.allowed {
			if denied("w", v.result).ErrStatus.Code < 400 {
				t.Error("a refusal that is none")
			}
			return
		}
		a := configMap(nil)
		q := &asking{w: w, r: w.deps.Of(a), op: "CREATE"}
		view, err := q.r.View(a.Kind)
		if err != nil {
			t.Fatal(err)
		}
		i := &invocation{hook: &hook{name: "w", kind: mutatingKind}, view: view}
		if _, err := q.apply(i, v); err != nil {
			return
		}
		if _, err := json.Marshal(a.Object); err != nil {
			t.Error(err)
		}
	})
}

// FuzzPatch: patches are any bytes.
func FuzzPatch(f *testing.F) {
	f.Add([]byte(`[{"op":"add","path":"/a","value":1}]`), []byte(`{}`))
	f.Add([]byte(`[{"op":"copy","from":"/a","path":"/a/-"},{"op":"move","from":"/a/0","path":""}]`), []byte(`{"a":[1]}`))
	f.Fuzz(func(t *testing.T, ops, doc []byte) {
		patch, err := jsonpatch.DecodePatch(ops)
		if err != nil || !json.Valid(doc) || len(ops) > 4096 {
			return
		}
		if out, err := applyPatch(patch, doc); err == nil && len(out) > maxPatched {
			t.Errorf("%d bytes", len(out))
		}
	})
}

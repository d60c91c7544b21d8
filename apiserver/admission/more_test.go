package admission

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	imagev1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
)

// through sends a request through one plugin alone.
func through(t *testing.T, d Deps, name string, a *request.Attributes) error {
	t.Helper()
	var off []string
	for _, e := range row() {
		if e.on && e.name != name {
			off = append(off, e.name)
		}
	}
	plugins, _, err := Choose(d, []string{name}, off)
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if m, ok := p.(request.Mutator); ok && p.Handles(a.Operation) {
			if err := m.Mutate(t.Context(), a); err != nil {
				return err
			}
		}
		if v, ok := p.(request.Validator); ok && p.Handles(a.Operation) {
			if err := v.Validate(t.Context(), a); err != nil {
				return err
			}
		}
	}
	return nil
}

func annotated(name string, kv ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: meta("", name)}
	ns.Annotations = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		ns.Annotations[kv[i]] = kv[i+1]
	}
	return ns
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestPodNodeSelector(t *testing.T) {
	b := requesttest.New().With(core("namespaces"), annotated("y", nodeSelectorKey, "disk=ssd,zone=a"), annotated("plain"))
	config := Configuration{"PodNodeSelector": []byte("podNodeSelectorPluginConfig:\n  clusterDefaultNodeSelector: pool=any\n  \"y\": disk=ssd,zone=a,pool=any\n")}
	for _, c := range []struct {
		namespace string
		selector  map[string]string
		want      string
		err       string
	}{
		{"y", nil, "map[disk:ssd zone:a]", ""},
		{"y", map[string]string{"pool": "any"}, "map[disk:ssd pool:any zone:a]", ""},
		{"y", map[string]string{"disk": "hdd"}, "", `pods "x" is forbidden: pod node label selector conflicts with its namespace node label selector`},
		{"y", map[string]string{"gpu": "yes"}, "", `pods "x" is forbidden: pod node label selector labels conflict with its namespace whitelist`},
		{"plain", nil, "map[pool:any]", ""},
	} {
		pod := newPod(func(p *corev1.Pod) { p.Namespace, p.Spec.NodeSelector = c.namespace, c.selector })
		err := through(t, Deps{Back: b, Config: config}, "PodNodeSelector", create("pods", pod))
		if text(err) != c.err || err == nil && fmt.Sprint(pod.Spec.NodeSelector) != c.want {
			t.Errorf("%s %v: got %v, %v", c.namespace, c.selector, pod.Spec.NodeSelector, err)
		}
	}
}

func TestPodTolerationRestriction(t *testing.T) {
	b := requesttest.New().With(core("namespaces"),
		annotated("y", defaultTolerationsKey, `[{"key":"a","operator":"Exists"}]`, allowedTolerationsKey, `[{"key":"a","operator":"Exists"}]`), annotated("plain"))
	config := Configuration{"PodTolerationRestriction": []byte(`{"default":[{"key":"d","operator":"Exists"}],"whitelist":[{"key":"d","operator":"Exists"}]}`)}
	tolerate := func(key, value string) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpEqual, Value: value}
	}
	for _, c := range []struct {
		namespace string
		own       []corev1.Toleration
		want      int
		err       string
	}{
		{"y", nil, 1, ""},
		{"y", []corev1.Toleration{tolerate("a", "1")}, 1, ""}, // the default covers it
		{"y", []corev1.Toleration{tolerate("b", "1")}, 0, `pods "x" is forbidden: pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist`},
		{"plain", []corev1.Toleration{tolerate("b", "1")}, 0, `pods "x" is forbidden: pod tolerations (possibly merged with namespace default tolerations) conflict with its cluster whitelist`},
		{"plain", nil, 1, ""},
	} {
		pod := newPod(func(p *corev1.Pod) { p.Namespace, p.Spec.Tolerations = c.namespace, c.own })
		err := through(t, Deps{Back: b, Config: config}, "PodTolerationRestriction", create("pods", pod))
		if text(err) != c.err || err == nil && len(pod.Spec.Tolerations) != c.want {
			t.Errorf("%s %v: got %v, %v", c.namespace, c.own, pod.Spec.Tolerations, err)
		}
	}
}

func TestEventRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plugin, err := newEventRate(Deps{Config: Configuration{"EventRateLimit": []byte(`{"limits":[{"type":"Server","qps":10,"burst":3},{"type":"Namespace","qps":1,"burst":2}]}`)}})
		if err != nil {
			t.Fatal(err)
		}
		send := func(namespace string) string {
			e := &corev1.Event{ObjectMeta: meta(namespace, "e")}
			return text(plugin.(request.Validator).Validate(t.Context(), create("events", e)))
		}
		for i, want := range []string{"", "", "Too many requests: limit reached on type Namespace for key a"} {
			if got := send("a"); got != want {
				t.Errorf("event %d: %q", i, got)
			}
		}
		if got := send("b"); got != "Too many requests: limit reached on type Server for key " {
			t.Errorf("got %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := send("a"); got != "" {
			t.Errorf("later: %q", got)
		}
	})
	_, err := newEventRate(Deps{Config: Configuration{"EventRateLimit": []byte(`{"limits":[{"type":"Nobody","qps":0,"burst":1}]}`)}})
	if want := `couldn't init admission plugin "EventRateLimit": [limits[0].type: Unsupported value: "Nobody": supported values: "Namespace", "Server", "SourceAndObject", "User", limits[0].qps: Invalid value: 0: must be positive]`; text(err) != want {
		t.Errorf("got %v", err)
	}
}

// catalog knows two kinds.
type catalog struct{}

func (catalog) Spellings(schema.GroupVersionResource, string) []request.Spelling { return nil }

func (catalog) Resource(kind schema.GroupVersionKind) (request.Spelling, schema.GroupResource, bool, bool) {
	if kind.Kind != "ReplicaSet" {
		return request.Spelling{}, schema.GroupResource{}, false, false
	}
	res := kind.GroupVersion().WithResource("replicasets")
	return request.Spelling{Kind: kind, Resource: res}, res.GroupResource(), true, true
}

// may allows what is listed as "verb resource/subresource namespace".
type may []string

func (m may) Authorize(_ context.Context, _ *request.User, i *request.Info) (request.Decision, string, error) {
	asked := i.Verb + " " + i.Resource
	if i.Subresource != "" {
		asked += "/" + i.Subresource
	}
	for _, s := range m {
		if s == asked+" "+i.Namespace {
			return request.Allow, "", nil
		}
	}
	return request.NoOpinion, "", nil
}

func TestOwnerReferences(t *testing.T) {
	owner := func(kind string, blocks bool) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: "o", UID: "u", BlockOwnerDeletion: &blocks}
	}
	owned := func(refs ...metav1.OwnerReference) *corev1.Pod {
		return newPod(func(p *corev1.Pod) { p.OwnerReferences = refs })
	}
	for want, c := range map[string]struct {
		may       may
		next, old *corev1.Pod
	}{
		"": {nil, owned(owner("ReplicaSet", false)), nil},
		`pods "x" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>`:                                                                                                     {nil, owned(owner("ReplicaSet", false)), owned()},
		`pods "x" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>`:                                                       {may{"delete pods y"}, owned(owner("ReplicaSet", true)), owned(owner("ReplicaSet", false))},
		`pods "x" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion apps/v1 Kind Unknown: no matches for kind "Unknown" in version "apps/v1"`: {nil, owned(owner("Unknown", true)), nil},
	} {
		a := create("pods", c.next)
		if c.old != nil {
			a.Operation, a.Old = request.Update, c.old
		}
		if err := through(t, Deps{Authorizer: c.may, Catalog: catalog{}}, "OwnerReferencesPermissionEnforcement", a); text(err) != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	a := create("pods", owned(owner("ReplicaSet", true)))
	if err := through(t, Deps{Authorizer: may{"update replicasets/finalizers y"}, Catalog: catalog{}}, "OwnerReferencesPermissionEnforcement", a); err != nil {
		t.Error(err)
	}
}

func TestSmallPlugins(t *testing.T) {
	apart := newPod(func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "zone"}}}}
	})
	resize := func(cpu string) *request.Attributes {
		a := create("pods", newPod(func(p *corev1.Pod) {
			p.Generation, p.Spec.NodeName = 2, "n"
			p.Spec.Containers[0].Resources.Requests = amounts2("cpu", cpu)
		}))
		a.Operation, a.Subresource, a.Old = request.Update, "resize", newPod(nil)
		return a
	}
	b := world().With(core("nodes"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}, Status: corev1.NodeStatus{Allocatable: amounts2("cpu", "2", "memory", "1Gi")}})
	for _, c := range []struct {
		plugin string
		a      *request.Attributes
		want   string
	}{
		{"AlwaysDeny", create("pods", newPod(nil)), `pods "x" is forbidden: admission control is denying all modifications`},
		{"NamespaceExists", create("pods", newPod(func(p *corev1.Pod) { p.Namespace = "nowhere" })), `namespaces "nowhere" not found`},
		{"LimitPodHardAntiAffinityTopology", create("pods", apart), `pods "x" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed`},
		{"PodResizeValidator", resize("1"), ""},
		{"PodResizeValidator", resize("3"), `pods "x" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000`},
		{"NodeDeclaredFeatureValidator", resize("1"), ""},
	} {
		if err := through(t, Deps{Back: b}, c.plugin, c.a); text(err) != c.want {
			t.Errorf("%s: got %v, want %s", c.plugin, err, c.want)
		}
	}
	binding := &corev1.Binding{ObjectMeta: meta("y", "x"), Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	a := create("pods", binding)
	a.Subresource = "binding"
	if err := through(t, Deps{Back: b}, "PodTopologyLabels", a); err != nil || binding.Labels[corev1.LabelTopologyZone] != "z" {
		t.Errorf("%v %v", binding.Labels, err)
	}
	if err := through(t, Deps{Back: b}, "NamespaceAutoProvision", create("pods", newPod(func(p *corev1.Pod) { p.Namespace = "fresh" }))); err != nil {
		t.Error(err)
	}
	if _, err := b.Get(t.Context(), core("namespaces"), "", "fresh"); err != nil {
		t.Error(err)
	}
}

// TestSecondRound: webhooks may have all plugins asked twice; what they did the
// first time must suffice.
func TestSecondRound(t *testing.T) {
	b := world()
	pod := newPod(func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = amounts2("cpu", "1") })
	a := create("pods", pod)
	if err := pass(t, b, a, "AlwaysPullImages", "ExtendedResourceToleration"); err != nil {
		t.Fatal(err)
	}
	once := pod.DeepCopy()
	if err := pass(t, b, a, "AlwaysPullImages", "ExtendedResourceToleration"); err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(once, pod) {
		t.Errorf("the second round changed\n%v\nto\n%v", once, pod)
	}
}

func TestSecurityContextDenyMeansBaseline(t *testing.T) {
	b := world().With(core("namespaces"), &corev1.Namespace{ObjectMeta: meta("", "kube-system")}).
		With(core("serviceaccounts"), &corev1.ServiceAccount{ObjectMeta: meta("kube-system", "default")})
	host := func(namespace string) *request.Attributes {
		return create("pods", newPod(func(p *corev1.Pod) { p.Namespace, p.Spec.HostNetwork = namespace, true }))
	}
	if err := pass(t, b, host("y")); err != nil {
		t.Error(err)
	}
	if err := pass(t, b, host("y"), securityContextDeny); !strings.HasPrefix(text(err), `pods "x" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`) {
		t.Errorf("got %v", err)
	}
	if err := pass(t, b, host("kube-system"), securityContextDeny); err != nil {
		t.Error(err)
	}
}

func TestAdmissionConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("events.yaml", "limits: [{type: Server, qps: 1, burst: 1}]")
	c, err := ReadConfiguration(write("admission.yaml", `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: EventRateLimit
  path: events.yaml
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: restricted, enforce-version: latest}
    exemptions: {usernames: [root], namespaces: [kube-system]}
`))
	if err != nil {
		t.Fatal(err)
	}
	d := Deps{Back: world(), Config: c}
	if err := through(t, d, "PodSecurity", create("pods", newPod(nil))); !strings.Contains(text(err), `violates PodSecurity "restricted:latest"`) {
		t.Errorf("got %v", err)
	}
	a := create("pods", newPod(nil))
	a.User = &request.User{Name: "root"}
	if err := through(t, d, "PodSecurity", a); err != nil {
		t.Error(err)
	}
	c["PodSecurity"] = []byte(`{"defaults":{"enforce":"some"}}`)
	if err := through(t, d, "PodSecurity", a); !strings.HasPrefix(text(err), `couldn't init admission plugin "PodSecurity": `) {
		t.Errorf("got %v", err)
	}
}

func TestUsersForWebhooks(t *testing.T) {
	for config, want := range map[string]string{
		"": "",
		"{apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: /etc/hooks}": "/etc/hooks",
		"{kind: WebhookAdmissionConfiguration, kubeConfigFile: hooks}":                                              `couldn't init admission plugin "ValidatingAdmissionWebhook": kubeConfigFile: Invalid value: "hooks": must be an absolute file path`,
		"{kind: Pod}": `couldn't init admission plugin "ValidatingAdmissionWebhook": unexpected kind "Pod", want WebhookAdmissionConfiguration`,
	} {
		c := Configuration{}
		if config != "" {
			c["ValidatingAdmissionWebhook"] = []byte(config)
		}
		got, err := c.HookUsers("ValidatingAdmissionWebhook")
		if got+text(err) != want {
			t.Errorf("%s: %s %v", config, got, err)
		}
	}
}

func TestImagePolicy(t *testing.T) {
	asked, seen := 0, map[string]string{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var review imagev1alpha1.ImageReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.Header.Get("Authorization") != "Bearer t" {
			http.Error(w, "bad", http.StatusBadRequest)
			return
		}
		seen = review.Spec.Annotations
		review.Status.Allowed = !strings.HasPrefix(review.Spec.Containers[0].Image, "evil")
		review.Status.Reason = "evil images"
		json.NewEncoder(w).Encode(review)
	}))
	defer server.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600)
	kube := filepath.Join(dir, "kubeconfig")
	os.WriteFile(kube, fmt.Appendf(nil, "clusters: [{name: c, cluster: {server: %s, certificate-authority: %s}}]\nusers: [{name: u, user: {token: t}}]\n", server.URL, ca), 0o600)
	plugin := func(open bool) request.Validator {
		p, err := newImagePolicy(Deps{Config: Configuration{"ImagePolicyWebhook": fmt.Appendf(nil, "imagePolicy: {kubeConfigFile: %s, retryBackoff: 1, defaultAllow: %v}", kube, open)}})
		if err != nil {
			t.Fatal(err)
		}
		return p.(request.Validator)
	}
	shut := plugin(false)
	evil := newPod(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil:1" })
	for range 2 {
		if err := shut.Validate(t.Context(), create("pods", newPod(nil))); err != nil {
			t.Error(err)
		}
		if err := shut.Validate(t.Context(), create("pods", evil)); text(err) != `pods "x" is forbidden: image policy webhook backend denied one or more images: evil images` {
			t.Errorf("got %v", err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times, not once per question", asked)
	}
	// What the pod says to the service by its annotations is part of the question; others are not.
	noted := newPod(func(p *corev1.Pod) {
		p.Annotations = map[string]string{"team.image-policy.k8s.io/ticket": "1234", "other": "x"}
	})
	if err := shut.Validate(t.Context(), create("pods", noted)); err != nil || fmt.Sprint(seen) != "map[team.image-policy.k8s.io/ticket:1234]" || asked != 3 {
		t.Errorf("%v, asked %d with %v", err, asked, seen)
	}
	for setting, want := range map[string]string{
		"allowTTL: 3000": "valid value is between 1s and 30m0s, got 50m0s", "denyTTL: -1": "", "retryBackoff: 400000": "valid value is between 1ns and 5m0s, got 6m40s",
	} {
		_, err := newImagePolicy(Deps{Config: Configuration{"ImagePolicyWebhook": fmt.Appendf(nil, "imagePolicy: {kubeConfigFile: %s, %s}", kube, setting)}})
		if want == "" && err != nil || want != "" && !strings.Contains(text(err), want) {
			t.Errorf("%s: %v", setting, err)
		}
	}
	server.Close()
	other := newPod(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other" })
	if err := shut.Validate(t.Context(), create("pods", other)); !strings.Contains(text(err), "connection refused") {
		t.Errorf("got %v", err)
	}
	if err := plugin(true).Validate(t.Context(), create("pods", other)); err != nil || other.Annotations[imageFailed] != "true" {
		t.Errorf("%v %v", other.Annotations, err)
	}
}

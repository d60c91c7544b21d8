package authz

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// judge is a service that decides by who asks.
type judge struct {
	t     *testing.T
	url   string
	asked atomic.Int64
	last  atomic.Pointer[authorizationv1.SubjectAccessReview]
	fail  atomic.Int64 // an HTTP status to answer with
}

func newJudge(t *testing.T) *judge {
	j := &judge{t: t}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.asked.Add(1)
		if code := j.fail.Load(); code != 0 {
			http.Error(w, "broken", int(code))
			return
		}
		body, _ := io.ReadAll(r.Body)
		var raw map[string]any
		var in authorizationv1.SubjectAccessReview
		if json.Unmarshal(body, &in) != nil || json.Unmarshal(body, &raw) != nil {
			t.Errorf("not a review: %s", body)
		}
		groups := map[string]string{"authorization.k8s.io/v1": "groups", "authorization.k8s.io/v1beta1": "group"}[in.APIVersion]
		if raw["spec"].(map[string]any)[groups] == nil {
			t.Errorf("groups are not spelled as %s has them: %s", in.APIVersion, body)
		}
		j.last.Store(&in)
		st := authorizationv1.SubjectAccessReviewStatus{Reason: "because of " + in.Spec.User}
		switch in.Spec.User {
		case "good":
			st.Allowed = true
		case "bad":
			st.Denied = true
		case "odd":
			st.Allowed, st.Denied = true, true
		}
		in.Status = st
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(in)
	}))
	t.Cleanup(srv.Close)
	j.url = srv.URL
	return j
}

func (j *judge) connect(kubeconfig string) (string, *http.Client, error) {
	if strings.HasSuffix(kubeconfig, "broken") {
		return "", nil, errors.New("no such file")
	}
	return j.url, http.DefaultClient, nil
}

func ask(t *testing.T, a request.Authorizer, user string, i *request.Info) string {
	t.Helper()
	d, reason, err := a.Authorize(t.Context(), &request.User{Name: user, Groups: []string{"g"}}, i)
	return fmt.Sprintf("%s %q %v", map[request.Decision]string{request.Allow: "allow", request.Deny: "deny", request.NoOpinion: "none"}[d], reason, err)
}

func TestWebhookDecides(t *testing.T) {
	j := newJudge(t)
	i := get("apps", "deployments/scale", "dev", "web")
	i.Version = "v1"
	i.FieldSelector, i.LabelSelector = "metadata.name=web,spec.x!=1", "app in (a,b),!old"
	for _, version := range []string{"v1", "v1beta1"} {
		h := NewWebhook(WebhookConfig{Name: "w", URL: j.url, Client: http.DefaultClient, Version: version, AuthorizedTTL: time.Minute}, nil)
		for user, want := range map[string]string{
			"good": `allow "because of good" <nil>`, "bad": `deny "because of bad" <nil>`, "who": `none "because of who" <nil>`,
			"odd": `deny "because of odd" webhook subject access review returned both allow and deny response`,
		} {
			if got := ask(t, h, user, i); got != want {
				t.Errorf("%s %s: %s, want %s", version, user, got, want)
			}
		}
		before := j.asked.Load()
		ask(t, h, "good", i)
		if j.asked.Load() != before {
			t.Error("a kept answer was asked for again")
		}
		ask(t, h, "bad", i)
		if j.asked.Load() == before {
			t.Error("an answer that is not to be kept was not asked for again")
		}
	}
	h := NewWebhook(WebhookConfig{Name: "w", URL: j.url, Client: http.DefaultClient, Version: "v1"}, nil)
	ask(t, h, "good", i)
	got, _ := json.Marshal(j.last.Load().Spec)
	want := `{"resourceAttributes":{"namespace":"dev","verb":"get","group":"apps","version":"v1","resource":"deployments","subresource":"scale","name":"web",` +
		`"fieldSelector":{"requirements":[{"key":"metadata.name","operator":"In","values":["web"]},{"key":"spec.x","operator":"NotIn","values":["1"]}]},` +
		`"labelSelector":{"requirements":[{"key":"app","operator":"In","values":["a","b"]},{"key":"old","operator":"DoesNotExist"}]}},"user":"good","groups":["g"]}`
	if string(got) != want {
		t.Errorf("asked %s\nwant  %s", got, want)
	}
	ask(t, h, "good", &request.Info{Path: "/metrics", Verb: "get"})
	if n := j.last.Load().Spec.NonResourceAttributes; n == nil || n.Path != "/metrics" {
		t.Errorf("asked %+v", j.last.Load().Spec)
	}
}

// TestWebhookFails: what a broken service means is the configuration's choice.
func TestWebhookFails(t *testing.T) {
	j := newJudge(t)
	j.fail.Store(http.StatusBadRequest)
	for deny, want := range map[bool]string{false: "none", true: "deny"} {
		h := NewWebhook(WebhookConfig{Name: "w", URL: j.url, Client: http.DefaultClient, DenyOnError: deny}, nil)
		if got := ask(t, h, "good", get("", "pods", "dev", "")); !strings.HasPrefix(got, want) || !strings.Contains(got, "400") {
			t.Errorf("deny=%t: %s", deny, got)
		}
	}
}

const structured = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: guard
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %s}
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: request.resourceAttributes.namespace == 'guarded'
- type: %s
  name: last
`

// TestStructured: a webhook with conditions before another authorizer, replaced
// while it is in use.
func TestStructured(t *testing.T) {
	j := newJudge(t)
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first := fmt.Appendf(nil, structured, kubeconfig, "AlwaysAllow")
	c, err := ReadConfiguration(first)
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	l, err := NewLive(c, Parts{Connect: j.connect, Metrics: NewMetrics(reg)})
	if err != nil {
		t.Fatal(err)
	}
	guarded, free := get("", "pods", "guarded", ""), get("", "pods", "free", "")
	for _, c := range []struct {
		user string
		i    *request.Info
		want string
	}{
		{"bad", guarded, "deny"}, {"bad", free, "allow"}, {"good", guarded, "allow"}, {"who", guarded, "allow"},
		{"bad", &request.Info{Path: "/metrics", Verb: "get"}, "allow"},
	} {
		if got := ask(t, l, c.user, c.i); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s in %q: %s, want %s", c.user, c.i.Namespace, got, c.want)
		}
	}
	if _, _, incomplete, err := l.Rules(t.Context(), &request.User{}, "x"); !incomplete || err == nil {
		t.Error("rules of a webhook cannot be complete")
	}
	if got := counted1(t, reg, "apiserver_authorization_decisions_total", "guard", "denied"); got != 1 {
		t.Errorf("counted %v denials", got)
	}
	if got := counted1(t, reg, "apiserver_authorization_match_condition_exclusions_total", "guard"); got != 2 {
		t.Errorf("counted %v exclusions", got)
	}

	path := filepath.Join(dir, "authz.yaml")
	write := func(b []byte) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", b, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, first, 0o600); err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("follow", func(ctx context.Context) error { return l.Follow(ctx, path, first) })
	defer func() { g.Stop(); g.Wait() }()
	// The watch may begin after the first changes: they are made again until seen.
	for deadline := clock.Now().Add(2 * time.Minute); !strings.HasPrefix(ask(t, l, "x", free), "none"); clock.Sleep(t.Context(), 300*time.Millisecond) {
		if clock.Now().After(deadline) {
			t.Fatal("a changed configuration is not taken")
		}
		write([]byte("authorizers: what?"))
		write(fmt.Appendf(nil, structured, kubeconfig, "AlwaysDeny"))
	}
}

// counted1 reads a counter by some of its labels' values.
func counted1(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if hasAll(m, labels) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func hasAll(m *dto.Metric, values []string) bool {
	for _, v := range values {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetValue() == v
		}
		if !found {
			return false
		}
	}
	return true
}

func TestWrongAuthorizationConfigurations(t *testing.T) {
	const head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthorizationConfiguration\nauthorizers:\n"
	for text, want := range map[string]string{
		strings.TrimSpace(head) + " []\n":                           "at least one authorization mode must be defined",
		head + "- {type: RBAC, name: a}\n- {type: RBAC, name: b}\n": `"RBAC" has mode specified more than once`,
		head + "- {type: Magic, name: a}\n":                         `"Magic" is not a valid mode`,
		head + "- {type: RBAC}\n":                                   "authorizers[0].name: Required value",
		head + "- {type: ABAC, name: a}\n":                          "authorization policy file not passed",
		head + "- {type: Webhook, name: a}\n":                       "required when type=Webhook",
		head + "- {type: RBAC, name: a, colour: red}\n":             `unknown field "authorizers[0].colour"`,
		fmt.Sprintf(strings.Replace(structured, "namespace == 'guarded'", "nonsense == 1", 1), "/dev/null/x", "RBAC"): "undefined field 'nonsense'",
	} {
		c, err := ReadConfiguration([]byte(text))
		if err == nil {
			_, err = NewLive(c, Parts{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in\n%s", err, want, text)
		}
	}
}

// TestABAC: a policy file of both forms.
func TestABAC(t *testing.T) {
	p, err := ReadABAC("policy", strings.NewReader(`# comment
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"alice","namespace":"*","resource":"*","apiGroup":"*"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","namespace":"projectCaribou","resource":"pods","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"ops","user":"carol","nonResourcePath":"/debug/*"}}

{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"*","nonResourcePath":"/healthz","readonly":true}}
{"user":"dave","resource":"events","ns":"ignored"}
`))
	if err != nil {
		t.Fatal(err)
	}
	everyone := []string{request.Authenticated}
	path := func(verb, path string) *request.Info { return &request.Info{Verb: verb, Path: path} }
	for _, c := range []struct {
		user   string
		groups []string
		i      *request.Info
		want   bool
	}{
		{"alice", everyone, verb("delete", get("apps", "deployments", "x", "")), true},
		{"alice", everyone, path("get", "/debug/pprof"), false},
		{"bob", everyone, get("", "pods", "projectCaribou", "p"), true},
		{"bob", everyone, verb("create", get("", "pods", "projectCaribou", "")), false},
		{"bob", everyone, get("", "pods", "other", "p"), false},
		{"bob", everyone, get("apps", "pods", "projectCaribou", "p"), false},
		{"carol", []string{"ops"}, path("get", "/debug/pprof"), true},
		{"carol", nil, path("get", "/debug/pprof"), false},
		{"eve", everyone, path("get", "/healthz"), true},
		{"eve", everyone, path("post", "/healthz"), false},
		{"eve", []string{request.Unauthenticated}, path("get", "/healthz"), false},
		{"dave", everyone, verb("create", get("events.k8s.io", "events", "any", "")), true},
		{"dave", everyone, path("get", "/x"), false},
	} {
		d, reason, _ := p.Authorize(t.Context(), &request.User{Name: c.user, Groups: c.groups}, c.i)
		if (d == request.Allow) != c.want || d == request.NoOpinion && reason != "No policy matched." {
			t.Errorf("%s %s %s%s: %v %s", c.user, c.i.Verb, c.i.Resource, c.i.Path, d, reason)
		}
	}
	resources, others, _, _ := p.Rules(t.Context(), &request.User{Name: "bob", Groups: everyone}, "projectCaribou")
	if len(resources) != 1 || resources[0].Verbs[0] != "get" || len(others) != 0 {
		t.Errorf("bob: %v %v", resources, others)
	}
	for text, want := range map[string]string{
		`{"user":`: "error reading policy file p, line 1", `{"apiVersion":"v9","kind":"Policy"}`: "unrecognized object", "\n" + `{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy"}`: "line 2",
	} {
		if _, err := ReadABAC("p", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

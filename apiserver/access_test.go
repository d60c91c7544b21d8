package apiserver_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/authn"
	"github.com/sampan-dev/sampan/apiserver/authz"
	requests "github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/apiserver/virtual"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/resource/all"
)

// guarded is a server with the authorizers of every cluster, and who asks it.
type guarded struct {
	t *testing.T
	s *apiserver.Server
}

func newGuarded(t *testing.T) guarded {
	t.Helper()
	registry := rest.NewRegistry(all.Kinds())
	e := rest.New(rest.Deps{Store: cached(t, registry), Registry: registry})
	back := e.Backend()
	ctx := requests.WithUser(t.Context(), apiserver.Loopback())
	rbac, node := authz.NewRBAC(back), authz.NewNode(back)
	live, err := authz.NewLive(authz.FromModes([]string{authz.ModeNode, authz.ModeRBAC}, nil), authz.Parts{RBAC: rbac, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	if err := authz.Bootstrap(ctx, back); err != nil {
		t.Fatal(err)
	}
	e.Authorizer = live
	e.Virtuals = virtual.Kinds(virtual.Deps{Authorizer: live})
	s, err := apiserver.New(apiserver.Config{Advertise: net.IPv4(127, 0, 0, 1)}, apiserver.Deps{Engine: e, Authn: []requests.Authenticator{byHeaders{}}, Impersonate: authn.Impersonate})
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(ctx)
	g.Go("rbac", rbac.Run)
	g.Go("node", node.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	w := guarded{t, s}
	await(t, "the bootstrap policy", func() bool { code, _ := w.whoami("somebody"); return code == 201 })
	return w
}

// byHeaders knows users by a header; root is of the masters.
type byHeaders struct{}

func (byHeaders) Authenticate(r *http.Request) (*requests.User, bool, error) {
	u := &requests.User{Name: r.Header.Get("X-Test-User"), Groups: []string{requests.Authenticated}}
	if u.Name == "root" {
		u.Groups = append(u.Groups, requests.Masters)
	}
	return u, u.Name != "", nil
}

// ask sends a request as somebody.
func (w guarded) ask(user, method, path, body string, head ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := request(method, path, body)
	r.Header.Set("X-Test-User", user)
	for i := 0; i+1 < len(head); i += 2 {
		r.Header.Add(head[i], head[i+1])
	}
	out := httptest.NewRecorder()
	w.s.Handler().ServeHTTP(out, r)
	return out
}

// whoami is what the server takes somebody for.
func (w guarded) whoami(user string, head ...string) (int, string) {
	w.t.Helper()
	out := w.ask(user, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","metadata":{}}`, head...)
	return out.Code, out.Body.String()
}

func (w guarded) code(user, method, path, body string) int {
	w.t.Helper()
	return w.ask(user, method, path, body).Code
}

// may says whether a user may read the config maps of the default namespace.
func (w guarded) may(user string) bool {
	w.t.Helper()
	return w.code(user, "GET", base+"configmaps", "") == 200
}

const rbacBase = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/"

// A change of a role or binding counts within a second, and every review of access
// says what the next request will meet.
func TestDecisionsFollowChanges(t *testing.T) {
	w := newGuarded(t)
	do := func(method, path, body string) {
		t.Helper()
		if out := w.ask("root", method, path, body); out.Code >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, out.Code, out.Body)
		}
	}
	within := func(what string, want bool) {
		t.Helper()
		began := time.Now()
		await(t, what, func() bool { return w.may("jane") == want })
		took := time.Since(began)
		t.Logf(`{"what":%q,"ms":%.3f}`, what, float64(took.Microseconds())/1000)
		if took > 10*time.Second { // a second, on a computer that has nothing else to do
			t.Errorf("%s: %v", what, took)
		}
		review := func(user, kind, spec string) string {
			t.Helper()
			plural := strings.ToLower(kind) + "s"
			path := "/apis/authorization.k8s.io/v1/" + plural
			if kind == "LocalSubjectAccessReview" {
				path = "/apis/authorization.k8s.io/v1/namespaces/default/" + plural
			}
			out := w.ask(user, "POST", path, `{"kind":"`+kind+`","apiVersion":"authorization.k8s.io/v1","metadata":{},"spec":`+spec+`}`)
			if out.Code != 201 {
				t.Fatalf("%s: %d %s", kind, out.Code, out.Body)
			}
			return out.Body.String()
		}
		const attributes = `"resourceAttributes":{"verb":"list","resource":"configmaps","namespace":"default"}`
		for kind, said := range map[string]string{
			"SubjectAccessReview":      review("root", "SubjectAccessReview", `{"user":"jane",`+attributes+`}`),
			"LocalSubjectAccessReview": review("root", "LocalSubjectAccessReview", `{"user":"jane",`+attributes+`}`),
			"SelfSubjectAccessReview":  review("jane", "SelfSubjectAccessReview", `{`+attributes+`}`),
		} {
			if got := strings.Contains(said, `"allowed":true`); got != want {
				t.Errorf("%s: %s says %s", what, kind, said)
			}
		}
		if got := strings.Contains(review("jane", "SelfSubjectRulesReview", `{"namespace":"default"}`), `"configmaps"`); got != want {
			t.Errorf("%s: the rules review has config maps: %v", what, got)
		}
	}
	within("nothing said of her", false)
	do("POST", rbacBase+"roles", `{"kind":"Role","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list"]}]}`)
	do("POST", rbacBase+"rolebindings", `{"kind":"RoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"jane"}]}`)
	within("a new binding", true)
	role := func(resource string) string {
		return `{"kind":"Role","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["` + resource + `"],"verbs":["list"]}]}`
	}
	do("PUT", rbacBase+"roles/r", role("secrets"))
	within("a right taken out of the role", false)
	do("PUT", rbacBase+"roles/r", role("configmaps"))
	within("a right put into the role", true)
	do("DELETE", rbacBase+"rolebindings/b", "")
	within("the binding gone", false)
}

// Who may impersonate becomes whom they say, with uid, groups and extra; who may
// not is told what they lack.
func TestWhomAServerTakesOneFor(t *testing.T) {
	w := newGuarded(t)
	if code, said := w.whoami("jane"); code != 201 || !strings.Contains(said, `"userInfo":{"username":"jane","groups":["system:authenticated"]}`) {
		t.Errorf("as herself: %d %s", code, said)
	}
	as := []string{"Impersonate-User", "jane", "Impersonate-Group", "devs", "Impersonate-Uid", "7", "Impersonate-Extra-Scopes", "a", "Impersonate-Extra-Scopes", "b", "Impersonate-Extra-Acme.com%2fproject", "x"}
	code, said := w.whoami("root", as...)
	if want := `"userInfo":{"username":"jane","uid":"7","groups":["devs","system:authenticated"],"extra":{"acme.com/project":["x"],"scopes":["a","b"]}}`; code != 201 || !strings.Contains(said, want) {
		t.Errorf("root as jane: %d %s", code, said)
	}
	if code, said = w.whoami("ann", as...); code != 403 || !strings.Contains(said, `cannot impersonate`) {
		t.Errorf("ann as jane: %d %s", code, said)
	}
	if code, said = w.whoami("root", "Impersonate-Uid", "7"); code < 400 {
		t.Errorf("a uid of nobody: %d %s", code, said)
	}
}

// Without fairness reads and writes have their slots, and who finds none is told
// when to come again; a watch takes none.
func TestSlotsWithoutFairness(t *testing.T) {
	url := serve(t, apiserver.Config{MaxReads: 1, MaxWrites: 1})
	code := func(head string) (int, string) {
		t.Helper()
		c := dial(t, url)
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nX-Test-User: jane\r\nConnection: close\r\n\r\n", head)
		c.SetReadDeadline(time.Now().Add(patient))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	await(t, "the default namespace", func() bool { n, _ := code("GET /api/v1/namespaces/default"); return n == 200 })
	held := dial(t, url)
	fmt.Fprintf(held, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nX-Test-User: jane\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
	await(t, "a write under way", func() bool {
		n, again := code("DELETE /api/v1/namespaces/default/configmaps/none")
		if n == 429 && again != "1" {
			t.Errorf("come again after %q", again)
		}
		return n == 429
	})
	if n, _ := code("GET /api/v1/namespaces/default"); n != 200 {
		t.Errorf("a read while a write is under way: %d", n)
	}
	if n, _ := code("GET /api/v1/configmaps?watch=1&timeoutSeconds=1"); n != 200 {
		t.Errorf("a watch: %d", n)
	}
	held.Close()
	await(t, "the slot", func() bool { n, _ := code("DELETE /api/v1/namespaces/default/configmaps/none"); return n == 404 })
}

package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/kit/pki"
)

func gr(r string) schema.GroupResource { return schema.GroupResource{Resource: r} }

func meta(ns, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID("uid-" + uid)}
}

func cluster() *requesttest.Backend {
	return requesttest.New().
		With(gr("serviceaccounts"), &corev1.ServiceAccount{ObjectMeta: meta("y", "robot", "sa")}).
		With(gr("pods"), &corev1.Pod{ObjectMeta: meta("y", "p", "p"), Spec: corev1.PodSpec{NodeName: "n"}}).
		With(gr("nodes"), &corev1.Node{ObjectMeta: meta("", "n", "n")})
}

func accounts(t *testing.T, b *requesttest.Backend) *Accounts {
	t.Helper()
	key, err := pki.NewKey(pki.ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAccounts(AccountsConfig{Key: key}, b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func robot() request.TokenClaims {
	return request.TokenClaims{
		Namespace: "y", Account: request.Ref{Name: "robot", UID: "uid-sa"}, Pod: &request.Ref{Name: "p", UID: "uid-p"},
		Node: &request.Ref{Name: "n", UID: "uid-n"}, Audiences: []string{DefaultIssuer}, Life: time.Hour,
	}
}

func TestBoundToken(t *testing.T) {
	b := cluster()
	a := accounts(t, b)
	token, _, id, err := a.Issue(robot())
	if err != nil {
		t.Fatal(err)
	}
	u, matched, ok, err := a.Token(t.Context(), token, nil)
	if !ok || err != nil {
		t.Fatal(err)
	}
	want := &request.User{
		Name: "system:serviceaccount:y:robot", UID: "uid-sa", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:y"},
		Extra: map[string][]string{
			"authentication.kubernetes.io/credential-id": {"JTI=" + id}, "authentication.kubernetes.io/pod-name": {"p"},
			"authentication.kubernetes.io/pod-uid": {"uid-p"}, "authentication.kubernetes.io/node-name": {"n"}, "authentication.kubernetes.io/node-uid": {"uid-n"},
		},
	}
	if !reflect.DeepEqual(u, want) || !slices.Equal(matched, []string{DefaultIssuer}) {
		t.Errorf("got %+v %v", u, matched)
	}
	if err := b.Delete(t.Context(), gr("pods"), "y", "p", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, ok, _ := a.Token(t.Context(), token, nil); ok {
		t.Error("the pod is gone and its token still good")
	}
	b.With(gr("pods"), &corev1.Pod{ObjectMeta: meta("y", "p", "another")})
	if _, _, ok, _ := a.Token(t.Context(), token, nil); ok {
		t.Error("the token of a pod passed for its namesake")
	}
}

func TestBadTokens(t *testing.T) {
	b := cluster()
	a := accounts(t, b)
	good, _, _, _ := a.Issue(robot())
	foreign, _, _, _ := accounts(t, b).Issue(robot()) // another key, the same issuer
	elsewhere := robot()
	elsewhere.Audiences = []string{"vault"}
	vault, _, _, _ := a.Issue(elsewhere)
	nobody := robot()
	nobody.Account.UID = "uid-old"
	old, _, _, _ := a.Issue(nobody)
	parts := strings.Split(good, ".")
	body, _ := base64.RawURLEncoding.DecodeString(parts[1])
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(body), "robot", "admin", 2))) + "." + parts[2]
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	for name, token := range map[string]string{"foreign key": foreign, "wrong audience": vault, "old account": old, "forged": forged, "unsigned": none, "noise": "a.b.c", "empty": ""} {
		if u, _, ok, _ := a.Token(t.Context(), token, nil); ok {
			t.Errorf("%s: passed as %s", name, u.Name)
		}
	}
	if _, m, ok, err := a.Token(t.Context(), vault, []string{"vault", "other"}); !ok || !slices.Equal(m, []string{"vault"}) {
		t.Errorf("audience vault: %v %v", m, err)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := accounts(t, cluster())
		token, _, _, _ := a.Issue(robot())
		union := New(Config{Tokens: []TokenAuthenticator{a}})
		try := func() bool {
			_, _, ok, _ := union.Review(t.Context(), token, nil)
			return ok
		}
		time.Sleep(time.Hour - time.Second)
		if !try() {
			t.Error("refused before its time")
		}
		time.Sleep(2 * time.Second) // the cache must not outlive the token
		if try() {
			t.Error("an expired token passed")
		}
	})
}

func TestLegacyToken(t *testing.T) {
	b := cluster()
	a := accounts(t, b)
	token, err := a.IssueLegacy("y", request.Ref{Name: "robot", UID: "uid-sa"}, "robot-token")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok, _ := a.Token(t.Context(), token, nil); ok {
		t.Error("passed without its secret")
	}
	b.With(gr("secrets"), &corev1.Secret{ObjectMeta: meta("y", "robot-token", "s"), Data: map[string][]byte{"token": []byte(token)}})
	if u, _, ok, err := a.Token(t.Context(), token, nil); !ok || u.Name != "system:serviceaccount:y:robot" {
		t.Error(err)
	}
}

func TestOtherTokens(t *testing.T) {
	b := cluster().With(gr("secrets"),
		&corev1.Secret{ObjectMeta: meta("kube-system", "bootstrap-token-abcdef", "b"), Type: corev1.SecretTypeBootstrapToken, Data: map[string][]byte{
			"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
			"auth-extra-groups": []byte("system:bootstrappers:kubeadm:default-node-token"), "expiration": []byte("2999-01-01T00:00:00Z"),
		}},
		&corev1.Secret{ObjectMeta: meta("kube-system", "bootstrap-token-expire", "x"), Type: corev1.SecretTypeBootstrapToken, Data: map[string][]byte{
			"token-id": []byte("expire"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"), "expiration": []byte("2001-01-01T00:00:00Z"),
		}})
	static, err := ReadStatic(strings.NewReader("secret,jane,u1,\"a,b\"\nplain,joe,u2\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadStatic(strings.NewReader("secret,jane\n")); err == nil {
		t.Error("a line without a uid passed")
	}
	u := New(Config{Tokens: []TokenAuthenticator{static, &Bootstrap{Back: b}}, Anonymous: true})
	cases := map[string]string{ // token -> user and groups; "" is refused
		"secret":                  "jane [a b system:authenticated]",
		"plain":                   "joe [system:authenticated]",
		"abcdef.0123456789abcdef": "system:bootstrap:abcdef [system:bootstrappers system:bootstrappers:kubeadm:default-node-token system:authenticated]",
		"abcdef.0123456789abcdeX": "",
		"abcdef.1123456789abcdef": "",
		"expire.0123456789abcdef": "",
		"nonsense":                "",
	}
	for token, want := range cases {
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		user, ok, err := u.Authenticate(r)
		got := ""
		if ok {
			got = user.Name + " [" + strings.Join(user.Groups, " ") + "]"
		} else if err == nil {
			t.Errorf("%s: neither known nor an error", token)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", token, got, want)
		}
		if ok && r.Header.Get("Authorization") != "" {
			t.Errorf("%s: the token goes on", token)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	if user, ok, _ := u.Authenticate(r); !ok || user.Name != request.Anonymous || !slices.Equal(user.Groups, []string{request.Unauthenticated}) {
		t.Errorf("anonymous: %+v", user)
	}
	if got := request.Unauthorized().Error(); got != "Unauthorized" {
		t.Error(got)
	}
	ws := httptest.NewRequest(http.MethodGet, "/exec", nil)
	ws.Header.Set("Connection", "Upgrade")
	ws.Header.Set("Upgrade", "websocket")
	ws.Header.Set("Sec-WebSocket-Protocol", webSocketToken+base64.RawURLEncoding.EncodeToString([]byte("secret"))+", v5.channel.k8s.io")
	if user, ok, err := u.Authenticate(ws); !ok || user.Name != "jane" || ws.Header.Get("Sec-WebSocket-Protocol") != "v5.channel.k8s.io" {
		t.Errorf("websocket: %+v %v %q", user, err, ws.Header)
	}
}

func withCert(t *testing.T, ca *pki.Pair, cn string, orgs []string, client bool) *http.Request {
	t.Helper()
	p, err := ca.Issue(pki.Request{CommonName: cn, Organizations: orgs, Client: client, Server: !client})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/api", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{p.Cert}}
	return r
}

func TestCertificatesAndProxies(t *testing.T) {
	ca, _ := pki.NewCA("kubernetes", "")
	front, _ := pki.NewCA("front", "")
	other, _ := pki.NewCA("kubernetes", "")
	u := New(Config{
		ClientCA: NewPool(ca.Cert), Anonymous: true,
		RequestHeader: &RequestHeader{CA: NewPool(front.Cert), AllowedNames: []string{"front-proxy-client"}, UserHeaders: []string{"X-Remote-User"}, GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"}},
	})
	user, ok, err := u.Authenticate(withCert(t, ca, "kubernetes-admin", []string{"kubeadm:cluster-admins"}, true))
	if !ok || user.Name != "kubernetes-admin" || !slices.Equal(user.Groups, []string{"kubeadm:cluster-admins", request.Authenticated}) || !strings.HasPrefix(user.Extra[CredentialID][0], "X509SHA256=") {
		t.Errorf("%+v %v", user, err)
	}
	reload := NewPool(ca.Cert)
	re, r1 := New(Config{ClientCA: reload}), withCert(t, ca, "jane", nil, true)
	if _, ok, err := re.Authenticate(r1); !ok {
		t.Error(err)
	}
	reload.Set(other.Cert)
	if _, ok, _ := re.Authenticate(r1); ok {
		t.Error("a certificate outlived the removal of its authority")
	}
	for name, r := range map[string]*http.Request{"foreign authority": withCert(t, other, "admin", nil, true), "a server's certificate": withCert(t, ca, "admin", nil, false)} {
		if _, ok, err := u.Authenticate(r); ok || err == nil {
			t.Errorf("%s passed", name)
		}
	}
	headers := func(r *http.Request) *http.Request {
		r.Header.Set("X-Remote-User", "jane")
		r.Header.Add("X-Remote-Group", "devs")
		r.Header.Set("X-Remote-Extra-Scopes%2fa", "s")
		return r
	}
	r := headers(withCert(t, front, "front-proxy-client", nil, true))
	user, ok, err = u.Authenticate(r)
	if !ok || user.Name != "jane" || !slices.Equal(user.Groups, []string{"devs", request.Authenticated}) || user.Extra["scopes/a"][0] != "s" || r.Header.Get("X-Remote-User") != "" {
		t.Errorf("%+v %v", user, err)
	}
	if _, ok, _ := u.Authenticate(headers(withCert(t, front, "somebody", nil, true))); ok {
		t.Error("a proxy not on the list passed")
	}
	if user, _, _ := u.Authenticate(headers(withCert(t, ca, "front-proxy-client", nil, true))); user.Name != "front-proxy-client" {
		t.Errorf("an ordinary client named another user: %s", user.Name)
	}
}

type allowNames map[string]bool

func (a allowNames) Authorize(_ context.Context, _ *request.User, i *request.Info) (request.Decision, string, error) {
	if a[i.Resource+"/"+i.Name] {
		return request.Allow, "", nil
	}
	return request.NoOpinion, "", nil
}

func TestImpersonate(t *testing.T) {
	admin := &request.User{Name: "admin"}
	try := func(allowed allowNames, kv ...string) (*request.User, error) {
		r := httptest.NewRequest(http.MethodGet, "/api", nil)
		for i := 0; i < len(kv); i += 2 {
			r.Header.Add(kv[i], kv[i+1])
		}
		r = r.WithContext(request.WithInfo(r.Context(), request.Parse(r)))
		return Impersonate(r, admin, allowed)
	}
	if u, err := try(nil); u != admin || err != nil {
		t.Error(u, err)
	}
	u, err := try(allowNames{"users/jane": true, "groups/devs": true, "userextras/x": true, "uids/7": true}, "Impersonate-User", "jane", "Impersonate-Group", "devs", "Impersonate-Extra-Scopes", "x", "Impersonate-Uid", "7")
	if err != nil || u.Name != "jane" || u.UID != "7" || !slices.Equal(u.Groups, []string{"devs", request.Authenticated}) || u.Extra["scopes"][0] != "x" {
		t.Errorf("%+v %v", u, err)
	}
	u, err = try(allowNames{"serviceaccounts/robot": true}, "Impersonate-User", "system:serviceaccount:y:robot")
	if err != nil || !slices.Equal(u.Groups, []string{"system:serviceaccounts", "system:serviceaccounts:y", request.Authenticated}) {
		t.Errorf("%+v %v", u, err)
	}
	_, err = try(nil, "Impersonate-User", "jane")
	if want := `forbidden: User "admin" cannot impersonate-on:user-info:get path "/api"`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := try(allowNames{"users/jane": true}, "Impersonate-User", "jane", "Impersonate-Group", "system:masters"); err == nil {
		t.Error("anyone may become a master")
	}
	if _, err := try(nil, "Impersonate-Group", "devs"); err == nil {
		t.Error("a group without a user passed")
	}
}

// rights allows what is listed as "verb resource[/sub] name" or "verb path".
type rights []string

func (a rights) Authorize(_ context.Context, _ *request.User, i *request.Info) (request.Decision, string, error) {
	what := i.Verb + " " + i.Path
	if i.IsResource {
		what = strings.TrimSuffix(i.Verb+" "+i.Resource+"/"+i.Subresource, "/") + " " + i.Name
	}
	if slices.Contains(a, what) {
		return request.Allow, "", nil
	}
	return request.NoOpinion, "", nil
}

// TestConstrainedImpersonation: to be another for some requests only.
func TestConstrainedImpersonation(t *testing.T) {
	agent := &request.User{Name: "system:serviceaccount:kube-system:agent", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"n1"}}}
	for name, c := range map[string]struct {
		by     *request.User
		allow  rights
		header [][2]string
		want   string // the user, or a part of the refusal
	}{
		"own node": {agent, rights{"impersonate-on:associated-node:list pods ", "impersonate:associated-node nodes *"},
			[][2]string{{"User", "system:node:n1"}}, "system:node:n1 [system:nodes system:authenticated]"},
		"another's node": {agent, rights{"impersonate-on:associated-node:list pods ", "impersonate:associated-node nodes *"},
			[][2]string{{"User", "system:node:n2"}}, "cannot impersonate-on:arbitrary-node:list resource \"pods\""},
		"any node": {agent, rights{"impersonate-on:arbitrary-node:list pods ", "impersonate:arbitrary-node nodes n2"},
			[][2]string{{"User", "system:node:n2"}}, "system:node:n2 [system:nodes system:authenticated]"},
		"account": {agent, rights{"impersonate-on:serviceaccount:list pods ", "impersonate:serviceaccount serviceaccounts robot"},
			[][2]string{{"User", "system:serviceaccount:y:robot"}}, "system:serviceaccount:y:robot [system:serviceaccounts system:serviceaccounts:y system:authenticated]"},
		"user": {agent, rights{"impersonate-on:user-info:list pods ", "impersonate:user-info users jane", "impersonate:user-info groups dev", "impersonate:user-info userextras/example.com/k v"},
			[][2]string{{"User", "jane"}, {"Group", "dev"}, {"Extra-example.com%2fk", "v"}}, "jane [dev system:authenticated]"},
		"not for this": {agent, rights{"impersonate-on:user-info:get pods ", "impersonate:user-info users jane"},
			[][2]string{{"User", "jane"}}, "cannot impersonate-on:user-info:list"},
		"masters": {agent, rights{"impersonate-on:user-info:list pods ", "impersonate:user-info users jane", "impersonate:user-info groups system:masters"},
			[][2]string{{"User", "jane"}, {"Group", "system:masters"}}, "impersonating the system:masters group is not allowed"},
		"of old": {agent, rights{"impersonate users jane", "impersonate groups system:masters"},
			[][2]string{{"User", "jane"}, {"Group", "system:masters"}}, "jane [system:masters system:authenticated]"},
		"nobody": {agent, nil, [][2]string{{"Group", "dev"}}, "without impersonating a user name"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/y/pods", nil)
		for _, h := range c.header {
			r.Header.Add("Impersonate-"+h[0], h[1])
		}
		r = r.WithContext(request.WithInfo(r.Context(), request.Parse(r)))
		got := ""
		if u, err := Impersonate(r, c.by, c.allow); err != nil {
			got = err.Error()
		} else {
			got = u.Name + " " + strings.Join([]string{"[", strings.Join(u.Groups, " "), "]"}, "")
			if len(r.Header) != 0 {
				t.Errorf("%s: headers are left: %v", name, r.Header)
			}
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestKeySet(t *testing.T) {
	a := accounts(t, cluster())
	get := func(h http.Handler) (map[string]any, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		var out map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return out, w.Header().Get("Content-Type")
	}
	doc, kind := get(a.Discovery())
	if doc["issuer"] != DefaultIssuer || doc["jwks_uri"] != DefaultIssuer+"/openid/v1/jwks" || kind != "application/json" {
		t.Errorf("%v %s", doc, kind)
	}
	set, kind := get(a.JWKS())
	keys := set["keys"].([]any)
	if k := keys[0].(map[string]any); len(keys) != 1 || k["kty"] != "EC" || k["alg"] != "ES256" || k["use"] != "sig" || k["d"] != nil || kind != "application/jwk-set+json" {
		t.Errorf("%v %s", set, kind)
	}
}

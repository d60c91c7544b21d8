package authn

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// issuer is an OpenID issuer on the loopback.
type issuer struct {
	t    *testing.T
	url  string
	ca   *pki.Pair
	key  atomic.Pointer[jose.JSONWebKey]
	down atomic.Bool
	at   string // where its name is dialled
	more map[string]func(http.ResponseWriter, *http.Request)
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, url: "https://issuer.example.com", more: map[string]func(http.ResponseWriter, *http.Request){}}
	var err error
	if i.ca, err = pki.NewCA("issuer", ""); err != nil {
		t.Fatal(err)
	}
	leaf, err := i.ca.Issue(pki.Request{CommonName: "issuer", Server: true, Hosts: []string{"issuer.example.com", "elsewhere.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	i.rotate("one")
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case i.down.Load():
			http.Error(w, "down", http.StatusServiceUnavailable)
		case i.more[r.URL.Path] != nil:
			i.more[r.URL.Path](w, r)
		case r.URL.Path == "/.well-known/openid-configuration", r.URL.Path == "/other/place":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/keys","authorization_endpoint":"%s/a","token_endpoint":"%s/t","id_token_signing_alg_values_supported":["ES256"]}`, i.url, i.url, i.url, i.url)
		case r.URL.Path == "/keys":
			w.Header().Set("Content-Type", "application/json")
			public := i.key.Load().Public()
			json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}})
		default:
			http.NotFound(w, r)
		}
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	i.at = srv.Listener.Addr().String()
	return i
}

func (i *issuer) rotate(id string) {
	key, err := pki.NewKey("")
	if err != nil {
		i.t.Fatal(err)
	}
	i.key.Store(&jose.JSONWebKey{Key: key, KeyID: id, Algorithm: "ES256", Use: "sig"})
}

func (i *issuer) options() JWTOptions {
	return JWTOptions{
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, i.at)
		},
	}
}

// token signs claims; the usual ones are filled in.
func (i *issuer) token(claims map[string]any) string {
	i.t.Helper()
	all := map[string]any{"iss": i.url, "aud": "kubernetes", "sub": "jane", "exp": clock.Now().Add(time.Hour).Unix(), "iat": clock.Now().Unix()}
	for k, v := range claims {
		all[k] = v
		if v == nil {
			delete(all, k)
		}
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: *i.key.Load()}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(all).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

// config is an AuthenticationConfiguration with one issuer; more is its YAML below jwt.
func (i *issuer) config(mappings string) []byte {
	ca, _ := json.Marshal(string(i.ca.CertPEM()))
	return fmt.Appendf(nil, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: %s\n    audiences: [kubernetes, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: %s\n%s", i.url, ca, mappings)
}

const plainMappings = "  claimMappings:\n    username: {claim: sub, prefix: 'oidc:'}\n    groups: {claim: groups, prefix: 'oidc:'}\n"

// start runs the issuers of a configuration and waits until they were reached.
func (i *issuer) start(config []byte) *Issuers {
	i.t.Helper()
	c, err := ReadConfiguration(config)
	if err != nil {
		i.t.Fatal(err)
	}
	out, err := NewIssuers(c, i.options(), NewMetrics(prometheus.NewRegistry()))
	if err != nil {
		i.t.Fatal(err)
	}
	g := run.New(i.t.Context())
	g.Go("issuers", out.Run)
	i.t.Cleanup(func() { g.Stop(); g.Wait() })
	if !i.down.Load() {
		eventually(i.t, func() bool { return out.Healthy() == nil }, func() string { return fmt.Sprint(out.Healthy()) })
	}
	return out
}

func eventually(t *testing.T, ok func() bool, says func() string) {
	t.Helper()
	for deadline := clock.Now().Add(2 * time.Minute); !ok(); {
		if clock.Now().After(deadline) {
			t.Fatal(says())
		}
		clock.Sleep(t.Context(), 5*time.Millisecond)
	}
}

// TestOIDC: who tokens of an issuer are, and why others are refused.
func TestOIDC(t *testing.T) {
	i := newIssuer(t)
	stranger := newIssuer(t)
	cel := `  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.iat <= 86400', message: 'token lives for more than a day'}
  claimMappings:
    username: {expression: '"corp:" + claims.name'}
    groups: {expression: 'claims.roles.split(",")'}
    uid: {claim: sub}
    extra:
    - {key: 'example.com/team', valueExpression: 'claims.example__dot__com.team'}
  userValidationRules:
  - {expression: "!user.username.startsWith('corp:root')", message: 'root does not come from outside'}
`
	good := map[string]any{"name": "jane", "roles": "dev,,ops", "hd": "example.com", "example.com": map[string]any{"team": []string{"a", "b"}}, "jti": "7"}
	with := func(k string, v any) map[string]any {
		out := map[string]any{}
		for key, value := range good {
			out[key] = value
		}
		out[k] = v
		return out
	}
	for name, c := range map[string]struct {
		config string
		token  string
		want   string // the user, or why not
	}{
		"plain":             {plainMappings, i.token(map[string]any{"groups": []string{"dev"}}), "oidc:jane [oidc:dev]  map[]"},
		"one group":         {plainMappings, i.token(map[string]any{"groups": "dev"}), "oidc:jane [oidc:dev]  map[]"},
		"second audience":   {plainMappings, i.token(map[string]any{"aud": []string{"x", "other"}}), "oidc:jane []  map[]"},
		"another audience":  {plainMappings, i.token(map[string]any{"aud": "x"}), `oidc: verify token: oidc: expected audience in ["kubernetes" "other"] got ["x"]`},
		"expired":           {plainMappings, i.token(map[string]any{"exp": clock.Now().Add(-time.Hour).Unix()}), "token is expired"},
		"forged":            {plainMappings, stranger.token(nil), "failed to verify signature"},
		"no user":           {plainMappings, i.token(map[string]any{"sub": nil}), `oidc: parse username claims "sub": claim not present`},
		"another issuer":    {plainMappings, i.token(map[string]any{"iss": "https://other.example.com"}), "unknown"},
		"unverified email":  {"  claimMappings:\n    username: {claim: email, prefix: ''}\n", i.token(map[string]any{"email": "j@example.com", "email_verified": false}), "oidc: email not verified"},
		"email":             {"  claimMappings:\n    username: {claim: email, prefix: ''}\n", i.token(map[string]any{"email": "j@example.com", "email_verified": true}), "j@example.com []  map[]"},
		"expressions":       {cel, i.token(good), "corp:jane [dev ops] jane map[authentication.kubernetes.io/credential-id:[JTI=7] example.com/team:[a b]]"},
		"claim rule":        {cel, i.token(with("hd", "evil.com")), "oidc: required claim hd value does not match. Got = evil.com, want = example.com"},
		"expression rule":   {cel, i.token(with("exp", clock.Now().Add(48*time.Hour).Unix())), "token lives for more than a day"},
		"user rule":         {cel, i.token(with("name", "root")), "root does not come from outside"},
		"nameless":          {cel, i.token(with("name", nil)), "no such key: name"},
		"groups of numbers": {"  claimMappings:\n    username: {claim: sub, prefix: ''}\n    groups: {expression: 'claims.n'}\n", i.token(map[string]any{"n": []int{1}}), "expression must return a string or a list of strings"},
	} {
		t.Run(name, func(t *testing.T) {
			is := &issuer{t: t, url: i.url, ca: i.ca, at: i.at}
			is.key.Store(i.key.Load())
			a := is.start(i.config(c.config))
			u, _, ok, err := a.Token(t.Context(), c.token, nil)
			got := "unknown"
			switch {
			case err != nil:
				got = err.Error()
			case ok:
				got = fmt.Sprint(u.Name, " ", u.Groups, " ", u.UID, " ", u.Extra)
			}
			if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
			if (err != nil) == ok && ok {
				t.Error("refused and known")
			}
		})
	}
}

// TestIssuerComesLate: requests are refused, not hung, until the issuer answers;
// its new keys are found when it changes them; its description may lie elsewhere.
func TestIssuerComesLate(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	config := strings.Replace(string(i.config(plainMappings)), "    audiences:", "    discoveryURL: https://elsewhere.example.com/other/place\n    audiences:", 1)
	a := i.start([]byte(config))
	if _, _, ok, err := a.Token(t.Context(), i.token(nil), nil); ok || err == nil || !strings.Contains(err.Error(), "oidc: authenticator not initialized") {
		t.Errorf("while it is down: %v %v", ok, err)
	}
	i.down.Store(false)
	eventually(t, func() bool { _, _, ok, _ := a.Token(t.Context(), i.token(nil), nil); return ok }, func() string { return "it is up and not known" })
	old := i.token(nil)
	i.rotate("two")
	if _, _, ok, err := a.Token(t.Context(), i.token(nil), nil); !ok {
		t.Errorf("with the new key: %v", err)
	}
	if _, _, ok, _ := a.Token(t.Context(), old, nil); ok {
		t.Error("a key that the issuer took back still counts")
	}
}

// TestDistributedGroups: the groups lie behind another address that a token names.
func TestDistributedGroups(t *testing.T) {
	i := newIssuer(t)
	i.more["/groups"] = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer let-me" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		io.WriteString(w, i.token(map[string]any{"groups": []string{"far"}}))
	}
	a := i.start(i.config(plainMappings))
	claims := map[string]any{"_claim_names": map[string]string{"groups": "s"}, "_claim_sources": map[string]any{"s": map[string]string{"endpoint": i.url + "/groups", "access_token": "let-me"}}}
	u, _, ok, err := a.Token(t.Context(), i.token(claims), nil)
	if !ok || !slices.Equal(u.Groups, []string{"oidc:far"}) {
		t.Errorf("%v %v %v", u, ok, err)
	}
	claims["_claim_sources"] = map[string]any{"s": map[string]string{"endpoint": i.url + "/groups"}}
	if _, _, ok, err := a.Token(t.Context(), i.token(claims), nil); ok || err == nil {
		t.Error("groups were not had and not missed")
	}
}

// TestConfigurationIsFollowed: a changed file counts without a restart; a wrong
// one changes nothing.
func TestConfigurationIsFollowed(t *testing.T) {
	i := newIssuer(t)
	path := filepath.Join(t.TempDir(), "authn.yaml")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	first := i.config(plainMappings)
	write(first)
	a := i.start(first)
	g := run.New(t.Context())
	g.Go("follow", func(ctx context.Context) error { return a.Follow(ctx, path, first) })
	defer func() { g.Stop(); g.Wait() }()
	name := func() string {
		u, _, ok, err := a.Token(t.Context(), i.token(nil), nil)
		if !ok {
			return fmt.Sprint(err)
		}
		return u.Name
	}
	if name() != "oidc:jane" {
		t.Fatal(name())
	}
	eventually(t, func() bool {
		// The watch may begin after the first change: it is made again until seen.
		write(i.config("  claimMappings:\n    username: {claim: sub, prefix: 'new:'}\nanonymous: {enabled: true, conditions: [{path: /healthz}]}\n"))
		clock.Sleep(t.Context(), 300*time.Millisecond)
		return name() == "new:jane"
	}, name)
	if says, enabled, paths := a.Anonymous(); !says || !enabled || !slices.Equal(paths, []string{"/healthz"}) {
		t.Errorf("anonymous: %v %v %v", says, enabled, paths)
	}
	u := New(Config{Issuers: a})
	for path, want := range map[string]bool{"/healthz": true, "/api": false} {
		if _, ok, _ := u.Authenticate(httptest.NewRequest("GET", path, nil)); ok != want {
			t.Errorf("anonymous at %s: %v", path, ok)
		}
	}
	write([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: [{issuer: {url: http://insecure}}]\n"))
	write(i.config("  claimMappings:\n    username: {claim: sub, prefix: 'last:'}\n"))
	eventually(t, func() bool { return name() == "last:jane" }, name)
}

// TestWrongConfigurations are refused with upstream's words.
func TestWrongConfigurations(t *testing.T) {
	i := newIssuer(t)
	for name, c := range map[string][2]string{
		"http":         {strings.Replace(string(i.config(plainMappings)), "https://issuer", "http://issuer", 1), "URL scheme must be https"},
		"both":         {string(i.config("  claimMappings:\n    username: {claim: sub, prefix: '', expression: 'claims.sub'}\n")), "claim and expression can't both be set"},
		"expression":   {string(i.config("  claimMappings:\n    username: {expression: 'claims.'}\n")), "compilation failed"},
		"email":        {string(i.config("  claimMappings:\n    username: {expression: 'claims.email'}\n")), "claims.email_verified must be used"},
		"unknown":      {string(i.config(plainMappings)) + "colour: red\n", `unknown field "colour"`},
		"other kind":   {"apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n", "expected AuthenticationConfiguration"},
		"own issuer":   {strings.Replace(string(i.config(plainMappings)), i.url, DefaultIssuer, 1), "URL must not overlap with disallowed issuers"},
		"no audiences": {strings.Replace(string(i.config(plainMappings)), "[kubernetes, other]", "[]", 1), "at least one jwt[0].issuer.audiences is required"},
	} {
		conf, err := ReadConfiguration([]byte(c[0]))
		if err == nil {
			o := i.options()
			o.Disallowed = []string{DefaultIssuer}
			_, err = NewIssuers(conf, o, nil)
		}
		if err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v, want %q", name, err, c[1])
		}
	}
}

// FuzzToken: whatever comes as a token is refused in peace.
func FuzzToken(f *testing.F) {
	i := &issuer{url: "https://issuer.example.com"}
	c, err := ReadConfiguration(fmt.Appendf(nil, "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: %s, audiences: [k]}\n  claimMappings: {username: {claim: sub, prefix: ''}}\n", i.url))
	if err != nil {
		f.Fatal(err)
	}
	a, err := NewIssuers(c, JWTOptions{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	key, err := pki.NewKey("")
	if err != nil {
		f.Fatal(err)
	}
	accounts, err := NewAccounts(AccountsConfig{Key: key}, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLmNvbSJ9.", "abcdef.0123456789abcdef", "{}", strings.Repeat(".", 1000), "\xff.\xff.\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, kind := range []TokenAuthenticator{a, accounts, &Static{}} {
			if u, _, ok, _ := kind.Token(t.Context(), token, nil); ok {
				t.Errorf("%q is %v", token, u)
			}
			if e, can := kind.(expiring); can {
				e.expires(token)
			}
		}
	})
}

// Of several issuers each is believed in what it signed, with mappings of its own,
// and none in the name of another.
func TestSeveralIssuers(t *testing.T) {
	one, two := newIssuer(t), newIssuer(t)
	two.url = "https://elsewhere.example.com"
	config := string(one.config(plainMappings)) + strings.SplitN(string(two.config("  claimMappings:\n    username: {expression: \"'two:' + claims.sub\"}\n")), "jwt:\n", 2)[1]
	c, err := ReadConfiguration([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	o := one.options()
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		at := one.at
		if strings.HasPrefix(address, "elsewhere.") {
			at = two.at
		}
		return (&net.Dialer{}).DialContext(ctx, network, at)
	}
	i, err := NewIssuers(c, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("issuers", i.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	eventually(t, func() bool { return i.Healthy() == nil }, func() string { return fmt.Sprint(i.Healthy()) })
	for token, want := range map[string]string{one.token(nil): "oidc:jane", two.token(nil): "two:jane", one.token(map[string]any{"iss": two.url}): "", two.token(map[string]any{"iss": one.url}): ""} {
		u, _, ok, err := i.Token(t.Context(), token, []string{"kubernetes"})
		switch {
		case want == "" && ok:
			t.Errorf("one issuer's token in the other's name: %v", u)
		case want != "" && (!ok || u.Name != want):
			t.Errorf("%v %v %v, want %s", u, ok, err, want)
		}
	}
}

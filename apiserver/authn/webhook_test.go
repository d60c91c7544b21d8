package authn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// TestWebhook: a service that knows tokens, and what becomes of its answers.
func TestWebhook(t *testing.T) {
	var asked atomic.Int64
	version := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var in authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		version = in.APIVersion
		switch in.Spec.Token {
		case "good":
			in.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{
				Username: "jane", UID: "1", Groups: []string{"dev"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}}
		case "narrow":
			in.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: []string{"other"}, User: authenticationv1.UserInfo{Username: "jane"}}
		case "odd":
			in.Status.Error = "the directory is closed"
		case "down":
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		json.NewEncoder(w).Encode(in)
	}))
	defer srv.Close()
	h := &Webhook{URL: srv.URL, Client: http.DefaultClient, TTL: time.Minute, Audiences: []string{"api"}}
	for _, c := range []struct {
		token     string
		audiences []string
		want      string
	}{
		{"good", nil, "jane 1 [dev] map[k:[v]] [api] true <nil>"},
		{"good", []string{"x"}, "jane 1 [dev] map[k:[v]] [x] true <nil>"},
		{"narrow", nil, "<nil> [] false <nil>"},
		{"narrow", []string{"x", "other"}, "jane  [] map[] [other] true <nil>"},
		{"unknown", nil, "<nil> [] false <nil>"},
		{"odd", nil, "<nil> [] false the directory is closed"},
		{"down", nil, "<nil> [] false token webhook: status 403 Forbidden: no\n"},
	} {
		u, matched, ok, err := h.Token(t.Context(), c.token, c.audiences)
		who := "<nil>"
		if u != nil {
			who = fmt.Sprint(u.Name, " ", u.UID, " ", u.Groups, " ", u.Extra)
		}
		if got := fmt.Sprintf("%s %v %v %v", who, matched, ok, err); got != c.want {
			t.Errorf("%s for %v: %q, want %q", c.token, c.audiences, got, c.want)
		}
	}
	if version != "authentication.k8s.io/v1beta1" {
		t.Errorf("spoke %s", version)
	}
	before := asked.Load()
	h.Token(t.Context(), "good", nil)
	h.Token(t.Context(), "unknown", nil)
	if asked.Load() != before {
		t.Error("kept answers were asked for again")
	}
	for n := range 2 * cacheSize {
		h.keep(cacheKey(fmt.Sprint(n), nil), reviewed{until: clock.Now().Add(time.Hour)})
	}
	if len(h.cache) > cacheSize {
		t.Errorf("%d answers are kept", len(h.cache))
	}
}

// TestAgnostic: a token without audiences is for the API server and nobody else.
func TestAgnostic(t *testing.T) {
	s, err := ReadStatic(strings.NewReader("secret,jane,1,\"a,b\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	kind := Agnostic(s, []string{"api", "kube"})
	for _, c := range []struct {
		audiences, want []string
		ok              bool
	}{{nil, []string{"api", "kube"}, true}, {[]string{"kube", "x"}, []string{"kube"}, true}, {[]string{"x"}, nil, false}} {
		_, matched, ok, err := kind.Token(t.Context(), "secret", c.audiences)
		if ok != c.ok || err != nil || !slices.Equal(matched, c.want) {
			t.Errorf("for %v: %v %v %v", c.audiences, matched, ok, err)
		}
	}
}

// TestLegacyUse: the use of a token in a Secret is dated; one marked invalid is
// refused; the watch over them is dated once.
func TestLegacyUse(t *testing.T) {
	b := cluster()
	a := accounts(t, b)
	token, err := a.IssueLegacy("y", request.Ref{Name: "robot", UID: "uid-sa"}, "s")
	if err != nil {
		t.Fatal(err)
	}
	b.With(gr("secrets"), &corev1.Secret{ObjectMeta: meta("y", "s", "s"), Data: map[string][]byte{"token": []byte(token)}})
	g := run.New(t.Context())
	g.Go("accounts", a.Run)
	defer func() { g.Stop(); g.Wait() }()
	if _, matched, ok, err := a.Token(t.Context(), token, nil); !ok || !slices.Equal(matched, a.Audiences()) {
		t.Fatalf("%v %v", ok, err)
	}
	if _, _, ok, _ := a.Token(t.Context(), token, []string{"elsewhere"}); ok {
		t.Error("it counts for another audience")
	}
	today := clock.Now().UTC().Format(dateForm)
	label := func() string {
		s, _ := b.Get(t.Context(), gr("secrets"), "y", "s")
		return s.GetLabels()[lastUsed]
	}
	eventually(t, func() bool { return label() == today }, label)
	if got := testutil.ToFloat64(a.uses.manual); got != 1 {
		t.Errorf("%v uses counted", got)
	}
	s, _ := b.Get(t.Context(), gr("secrets"), "y", "s")
	s = s.DeepCopyObject().(*corev1.Secret)
	s.SetLabels(map[string]string{invalidSince: today})
	b.Delete(t.Context(), gr("secrets"), "y", "s", nil)
	b.With(gr("secrets"), s)
	if _, _, ok, err := a.Token(t.Context(), token, nil); ok || err == nil || !strings.Contains(err.Error(), "the token in secret y/s for service account y/robot has been marked invalid") {
		t.Errorf("%v %v", ok, err)
	}
	for range 2 {
		if err := a.TrackLegacy(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	m, err := b.Get(t.Context(), gr("configmaps"), "kube-system", trackingMap)
	if err != nil || m.(*corev1.ConfigMap).Data["since"] != today {
		t.Errorf("%v %v", m, err)
	}
}

// TestMetricsAndRefusals: what is counted, and what the log says of a refusal.
func TestMetricsAndRefusals(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	s, _ := ReadStatic(strings.NewReader("secret,jane@example.com,1\n"))
	u := New(Config{Tokens: []TokenAuthenticator{s}, Metrics: m})
	try := func(header string) string {
		r := httptest.NewRequest("GET", "/api", nil)
		r.Header.Set("Authorization", header)
		_, ok, err := u.Authenticate(r)
		return fmt.Sprint(ok, " ", err)
	}
	for header, want := range map[string]string{
		"Bearer secret": "true <nil>", "Bearer other": "false invalid bearer token", "": "false <nil>",
		"Basic amFuZTpzZWNyZXQ=": "false basic authentication was removed in v1.19: use a token or a client certificate",
	} {
		if got := try(header); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
	for result, want := range map[string]float64{"success": 1, "error": 2, "failure": 1} {
		if got := testutil.ToFloat64(m.attempts.WithLabelValues(result)); got != want {
			t.Errorf("%s: %v", result, got)
		}
	}
	if got := testutil.ToFloat64(m.users.WithLabelValues("email_id")); got != 1 {
		t.Errorf("email_id: %v", got)
	}
}

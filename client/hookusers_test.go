package client

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestHookUsers(t *testing.T) {
	dir := t.TempDir()
	path, token := filepath.Join(dir, "hooks"), filepath.Join(dir, "token")
	os.WriteFile(token, []byte("from-a-file"), 0o600)
	os.WriteFile(path, []byte(`
apiVersion: v1
kind: Config
users:
- {name: "hook.team.svc", user: {token: service}}
- {name: "hook.team.svc:8443", user: {token: port}}
- {name: "*.example.com", user: {username: u, password: p}}
- {name: "deep.example.com", user: {tokenFile: `+token+`}}
- {name: "*", user: {token: other}}
`), 0o600)
	shown, err := HookUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := ""
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Get("Authorization") }))
	defer server.Close()
	for at, want := range map[string]string{
		"hook.team.svc:443": "Bearer service", "hook.team.svc:8443": "Bearer port", "hook.team.svc:9443": "Bearer other",
		"a.example.com:443": "Basic dTpw", "a.b.example.com:443": "Basic dTpw", "a.example.com:444": "Bearer other",
		"deep.example.com:443": "Bearer from-a-file", "127.0.0.1:443": "Bearer other",
	} {
		certificate, wrap, err := shown(at)
		if err != nil || certificate != nil {
			t.Fatal(at, err)
		}
		resp, err := wrap(http.DefaultTransport).RoundTrip(httptest.NewRequest("GET", server.URL, nil))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if seen != want {
			t.Errorf("%s: %q, want %q", at, seen, want)
		}
	}
	if _, err := HookUsers(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there")
	}
}

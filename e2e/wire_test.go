package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/pki"
)

// wire speaks HTTP to the API server, for what kubectl would not send.
type wire struct {
	*world
	server string
	roots  *x509.CertPool
}

func newWire(w *world) *wire {
	w.Helper()
	text := w.k("config", "view", "--raw", "--minify")
	find := func(pattern string) string {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			w.Fatalf("no %s in the kubeconfig", pattern)
		}
		return m[1]
	}
	ca, err := base64.StdEncoding.DecodeString(find(`certificate-authority-data: (\S+)`))
	if err != nil {
		w.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &wire{w, find(`server: (\S+)`), pool}
}

// send makes a request with a token or a client certificate, whichever there is.
func (x *wire) send(method, path, contentType string, body []byte, token string, cert *tls.Certificate) (code int, answer string) {
	x.Helper()
	cfg := &tls.Config{RootCAs: x.roots, MinVersion: tls.VersionTLS12}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	c := &http.Client{Timeout: limit, Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
	var resp *http.Response
	// A body that is refused unread may still be on its way when the connection
	// ends; a client that is slow to look then misses the answer, and asks again.
	for tries := 0; resp == nil; tries++ {
		r, err := http.NewRequestWithContext(x.Context(), method, x.server+path, bytes.NewReader(body))
		if err != nil {
			x.Fatal(err)
		}
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err = c.Do(r)
		if cut := errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET); err != nil && (!cut || tries == 10) {
			x.Fatalf("%s %s: %v", method, path, err)
		}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		x.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// clusterPKI is where the cluster keeps its keys, as this computer sees it.
func clusterPKI() string {
	return filepath.Join(home, "clusters", cluster, cluster+"-1", "root/var/lib/sampan/pki")
}

// Tokens and certificates that are past, or that somebody else made, let nobody in.
func TestExpiredAndForgedCredentials(t *testing.T) {
	w := beside(t)
	x, ns := newWire(w), w.namespace()
	token := strings.TrimSpace(w.k("-n", ns, "create", "token", "default"))
	pods := "/api/v1/namespaces/" + ns + "/pods"
	if code, answer := x.send("GET", pods, "", nil, token, nil); code != 403 || !strings.Contains(answer, `User \"system:serviceaccount:`+ns+`:default\" cannot list resource \"pods\"`) {
		t.Errorf("a good token: %d %s", code, answer)
	}
	key, err := pki.LoadSigner(filepath.Join(clusterPKI(), "sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pki.NewKey("")
	if err != nil {
		t.Fatal(err)
	}
	hour := int64(3600)
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"signed again, unchanged": {resign(t, token, key, now-hour, now+hour), 403},
		"expired":                 {resign(t, token, key, now-2*hour, now-hour), 401},
		"not valid yet":           {resign(t, token, key, now+hour, now+2*hour), 401},
		"a stranger's":            {resign(t, token, stranger, now-hour, now+hour), 401},
		"cut short":               {token[:len(token)-10], 401},
	} {
		if code, answer := x.send("GET", pods, "", nil, c.token, nil); code != c.code || c.code == 401 && !strings.Contains(answer, `"reason":"Unauthorized"`) {
			t.Errorf("a token that is %s: %d %s, want %d", name, code, answer, c.code)
		}
	}
	w.fails("", []string{"You must be logged in"}, "--token="+resign(t, token, key, now-2*hour, now-hour), "--kubeconfig", tokenOnly(w), "get", "pods")

	ca, err := pki.Load(clusterPKI(), "ca")
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA("kubernetes", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ca   *pki.Pair
		life time.Duration
		code int
	}{"good": {ca, time.Hour, 200}, "expired": {ca, -time.Minute, 401}, "a stranger's": {other, time.Hour, 401}} {
		p, err := c.ca.Issue(pki.Request{CommonName: "kubernetes-admin", Organizations: []string{"system:masters"}, Client: true, Life: c.life})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cert := p.TLS()
		if code, answer := x.send("GET", pods, "", nil, "", &cert); code != c.code {
			t.Errorf("a certificate that is %s: %d %s, want %d", name, code, answer, c.code)
		}
	}
}

// resign gives a token other times and signs it with key.
func resign(t *testing.T, token string, key crypto.Signer, from, until int64) string {
	t.Helper()
	parts := strings.Split(token, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(claims, &m); err != nil {
		t.Fatal(err)
	}
	m["iat"], m["nbf"], m["exp"] = from, from, until
	if claims, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	said := parts[0] + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(said))
	var sig []byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig = make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
	case *rsa.PrivateKey:
		if sig, err = rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:]); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("a key of type %T", key)
	}
	return said + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// Bodies that are no objects are refused with a Status that says why, and
// nothing is stored.
func TestGarbageOnTheWire(t *testing.T) {
	w := beside(t)
	x, ns := newWire(w), w.namespace()
	admin, err := pki.Load(clusterPKI(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	cert := admin.TLS()
	maps := "/api/v1/namespaces/" + ns + "/configmaps"
	const proto = "application/vnd.kubernetes.protobuf"
	big := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"a":%q}}`, strings.Repeat("x", 4<<20))
	for name, c := range map[string]struct {
		contentType, body string
		code              int
		says              string
	}{
		"protobuf without its mark":         {proto, "\x0a\x04name", 400, "provided data does not appear to be a protobuf message"},
		"protobuf's mark and garbage":       {proto, "k8s\x00\xff\xff\xff\xff\xff\xff\xff\xff", 400, ""},
		"an envelope around garbage":        {proto, "k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x04\xff\xff\xff\xff", 400, ""},
		"protobuf cut short":                {proto, "k8s\x00\x0a\x0f\x0a\x02v1\x12\x09Conf", 400, ""},
		"nothing at all as protobuf":        {proto, "", 400, ""},
		"JSON cut short":                    {"application/json", `{"apiVersion":"v1","kind":"ConfigMap"`, 400, ""},
		"JSON of another kind":              {"application/json", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}`, 400, ""},
		"an unknown version":                {"application/json", `{"apiVersion":"v9","kind":"ConfigMap","metadata":{"name":"s"}}`, 400, ""},
		"nesting without end":               {"application/json", strings.Repeat(`{"a":`, 20000), 400, ""},
		"a content type nobody understands": {"text/poetry", "ahoy", 415, "the body of the request was in an unknown format"},
		"more than the server reads":        {"application/json", big, 413, ""},
	} {
		code, answer := x.send("POST", maps, c.contentType, []byte(c.body), "", &cert)
		var status struct{ Kind, Status, Message string }
		if err := json.Unmarshal([]byte(answer), &status); err != nil || status.Kind != "Status" || status.Status != "Failure" || status.Message == "" {
			t.Errorf("%s: no Status: %s", name, answer)
		}
		if code != c.code || !strings.Contains(status.Message, c.says) {
			t.Errorf("%s: %d %q, want %d %q", name, code, status.Message, c.code, c.says)
		}
	}
	if out := w.k("-n", ns, "get", "configmaps,secrets", "-o", "name"); out != "configmap/kube-root-ca.crt\n" {
		t.Errorf("something was stored: %s", out)
	}
}

package planes

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
)

// kube-apiserver's flags have effect on sampan server: who is believed, by an
// issuer of OpenID Connect and by a file of tokens, and what is put on record.
func TestServersFlags(t *testing.T) {
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	l := lab.New(t)
	m := l.Machine("a")
	ca, err := pki.NewCA("issuer", "")
	must(t, err)
	leaf, err := ca.Issue(pki.Request{CommonName: "issuer", Server: true, Hosts: []string{"127.0.0.1"}})
	must(t, err)
	leafKey, err := leaf.KeyPEM()
	must(t, err)
	m.File("issuer/tls.crt", string(leaf.CertPEM()))
	m.File("issuer/tls.key", string(leafKey))
	signer, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	const issuer = "https://127.0.0.1:8443"
	m.File("issuer/.well-known/openid-configuration", text(t, map[string]any{"issuer": issuer, "jwks_uri": issuer + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}}))
	m.File("issuer/keys", text(t, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k",
		"n": encoded(signer.N.Bytes()), "e": encoded(big.NewInt(int64(signer.E)).Bytes())}}}))
	m.Start("issuer", "sh", "-c", "cd /run/hand/issuer && exec openssl s_server -quiet -WWW -accept 127.0.0.1:8443 -cert tls.crt -key tls.key")

	o := &server{Machine: m, argv: []string{lab.InBin, "server", "--disable-node", "--token", token,
		"--oidc-issuer-url=" + issuer, "--oidc-client-id=ship", "--oidc-ca-file=" + m.File("issuer-ca.crt", string(ca.CertPEM())), "--oidc-username-prefix=oidc:", "--oidc-groups-claim=crew", "--oidc-groups-prefix=oidc:",
		"--token-auth-file=" + m.File("tokens.csv", "0123456789,tom,7,\"deck,galley\"\n"),
		"--audit-log-path=/var/log/audit.log", "--audit-policy-file=" + m.File("audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Request\n  resources: [{group: \"\", resources: [configmaps]}]\n- level: None\n")}}
	o.run()
	o.ready()
	as := func(token string, args ...string) (string, error) {
		return m.Try(append([]string{lab.InBin, "kubectl", "--kubeconfig=/dev/null", "--server=https://127.0.0.1:6443", "--certificate-authority=/var/lib/sampan/pki/ca.crt", "--token=" + token}, args...)...)
	}
	jwt := func(audience string) string {
		now := clock.Now()
		head := encoded([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + encoded([]byte(text(t, map[string]any{
			"iss": issuer, "aud": audience, "sub": "jane", "crew": []string{"officers"}, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})))
		sum := sha256.Sum256([]byte(head))
		sig, err := rsa.SignPKCS1v15(rand.Reader, signer, crypto.SHA256, sum[:])
		must(t, err)
		return head + "." + encoded(sig)
	}
	who := []string{"auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"}
	lab.Until(m, "the issuer's word counts", func() error {
		out, err := as(jwt("ship"), who...)
		if err != nil || !strings.HasPrefix(out, "oidc:jane ") || !strings.Contains(out, `"oidc:officers"`) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	if out, err := as(jwt("another ship"), who...); err == nil || !strings.Contains(out, "Unauthorized") {
		t.Errorf("a token for somebody else: %v %s", err, out)
	}
	if out, err := as("0123456789", who...); err != nil || !strings.HasPrefix(out, "tom ") || !strings.Contains(out, `"galley"`) {
		t.Errorf("a token of the file: %v %s", err, out)
	}
	if out, err := as("0123456789", "get", "configmaps"); err == nil || !strings.Contains(out, `User "tom" cannot list resource "configmaps"`) {
		t.Errorf("tom has no rights: %v %s", err, out)
	}
	o.writes("on-record")
	lab.Until(m, "it is on record", func() error {
		out := m.Sh("cat /var/log/audit.log 2>/dev/null || true")
		for _, want := range []string{`"username":"tom"`, `"code":403`, `"requestObject":{"kind":"ConfigMap"`, `"name":"on-record"`} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %s in:\n%s", want, out[max(0, len(out)-2000):])
			}
		}
		if strings.Contains(out, "RequestReceived") || strings.Contains(out, `"resource":"leases"`) {
			return fmt.Errorf("the policy does not count")
		}
		return nil
	})
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

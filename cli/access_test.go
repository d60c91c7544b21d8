package cli

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/pki"
)

// access reads a command line of kube-apiserver's.
func access(t *testing.T, args string) (*apiServerFlags, error) {
	t.Helper()
	c := newComponent("kube-apiserver", "")
	f := &apiServerFlags{}
	f.declare(c)
	f.declareServing(c)
	f.access.declare(c, &f.cfg)
	f.retire(c)
	if _, err := c.parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	f.access.clientCA, f.access.requestHeaderCA, f.access.accountKeys = f.clientCA, f.requestHeaderCA, f.accountKeys
	return f, f.access.load(c, &f.cfg)
}

func TestAccessFlags(t *testing.T) {
	dir := t.TempDir()
	var cas, keys []byte
	for _, name := range []string{"one", "two"} {
		ca, err := pki.NewCA(name, "")
		if err != nil {
			t.Fatal(err)
		}
		key, err := pki.EncodePublic(ca.Key.Public())
		if err != nil {
			t.Fatal(err)
		}
		cas, keys = append(cas, ca.CertPEM()...), append(keys, key...)
	}
	file := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bundle, pub := file("ca.crt", cas), file("sa.pub", keys)
	f, err := access(t, "--client-ca-file="+bundle+" --requestheader-client-ca-file="+bundle+" --service-account-key-file="+pub+
		" --service-account-issuer=https://a --service-account-issuer=https://b --api-audiences=x,y --service-account-extend-token-expiration=false"+
		" --oidc-issuer-url=https://i --oidc-client-id=k --oidc-required-claim=a=b --requestheader-allowed-names=front"+
		" --authorization-mode=Node,RBAC --enable-aggregator-routing --authorization-webhook-cache-authorized-ttl=0s")
	if err != nil {
		t.Fatal(err)
	}
	x := &f.cfg.Access
	names := func(certs []*x509.Certificate) (out []string) {
		for _, c := range certs {
			out = append(out, c.Subject.CommonName)
		}
		return out
	}
	if !slices.Equal(names(x.ClientCAs), []string{"two"}) || !slices.Equal(names(x.FrontProxyCAs), []string{"two"}) || len(x.AccountKeys) != 2 {
		t.Errorf("of bundles: %v %v, %d keys", names(x.ClientCAs), names(x.FrontProxyCAs), len(x.AccountKeys))
	}
	if !slices.Equal(x.Issuers, []string{"https://a", "https://b"}) || !slices.Equal(x.Audiences, []string{"x", "y"}) || !x.ExactTokens || x.NoBootstrapTokens ||
		x.OIDC.RequiredClaims["a"] != "b" || !slices.Equal(x.AllowedNames, []string{"front"}) || !f.cfg.EndpointRouting || f.cfg.AllowRedirects ||
		*x.WebhookAuthorizedTTL != 0 || *x.WebhookUnauthorizedTTL != 30*time.Second {
		t.Errorf("%+v", x)
	}
	anonymous := file("authn.yaml", []byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: false}\n"))
	for args, want := range map[string]string{
		"":                            "",
		"--oidc-issuer-url=https://i": "oidc-issuer-url and oidc-client-id must be specified together",
		"--authorization-config=/x --authorization-mode=RBAC":                  "--authorization-config can not be specified when",
		"--authorization-policy-file=/x --authorization-mode=RBAC":             "without mode ABAC",
		"--authorization-mode=Webhook":                                         "authorization config file not passed",
		"--authentication-config=" + anonymous + " --anonymous-auth=true":      "--anonymous-auth flag cannot be set",
		"--service-account-key-file=" + anonymous:                              "does not contain any valid RSA or ECDSA public keys",
		"--client-ca-file=" + pub:                                              "holds no certificate",
		"--proxy-client-cert-file=" + bundle + " --proxy-client-key-file=/no/": "--proxy-client-cert-file",
		"--service-account-lookup=false":                                       "is not supported",
	} {
		_, err := access(t, args)
		if got := ""; err != nil {
			if got = err.Error(); want == "" || !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %q", args, got, want)
			}
		} else if want != "" {
			t.Errorf("%s passed", args)
		}
	}
}

package controlplane

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/kit/pki"
)

// The flags of TLS as upstream has them: versions, ciphers, and certificates for
// the names that clients ask for.
func TestTLSOptions(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.NewCA("ca", "")
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string, hosts ...string) string {
		p, err := ca.Issue(pki.Request{CommonName: name, Server: true, Hosts: hosts})
		if err == nil {
			err = p.Save(dir, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name+".crt") + "," + filepath.Join(dir, name+".key")
	}
	own, wild, other := certificate("own", "one.example.com", "*.own.example.com"), certificate("wild", "ignored.example.com"), certificate("other")
	fallback := &tls.Certificate{}
	c := apiserver.Config{Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return fallback, nil }}
	o := TLS{MinVersion: "VersionTLS13", Ciphers: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"}, SNI: []string{own, wild + ":*.wild.example.com,wild.example.com"}}
	if err := o.apply(&c); err != nil {
		t.Fatal(err)
	}
	if c.MinVersion != tls.VersionTLS13 || len(c.CipherSuites) != 2 || c.CipherSuites[0] != tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 {
		t.Errorf("version %x, suites %x", c.MinVersion, c.CipherSuites)
	}
	shown := func(name string) string {
		t.Helper()
		got, err := c.Certificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if got == fallback {
			return ""
		}
		return got.Leaf.Subject.CommonName
	}
	for name, want := range map[string]string{
		"one.example.com": "own", "ONE.example.com.": "own", "a.own.example.com": "own", "a.b.own.example.com": "", "x.wild.example.com": "wild",
		"wild.example.com": "wild", "ignored.example.com": "", "": "", "example.com": "",
	} {
		if got := shown(name); got != want {
			t.Errorf("for %q: %q, want %q", name, got, want)
		}
	}
	files := strings.Split(own, ",")
	for i, file := range strings.Split(other, ",") { // replaced while the server runs
		text, err := os.ReadFile(file)
		if err == nil {
			err = pki.WriteFile(files[i], text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := shown("other"); got != "other" {
		t.Errorf("after its files changed: %q", got)
	}
	for want, bad := range map[string]TLS{
		`--tls-min-version: unknown tls version "1.2"`:                        {MinVersion: "1.2"},
		"--tls-cipher-suites: Cipher suite NULL not supported or":             {Ciphers: []string{"NULL"}},
		"--tls-sni-cert-key: \"a.crt\": expected comma separated certificate": {SNI: []string{"a.crt"}},
		"--tls-sni-cert-key: ": {SNI: []string{"/none.crt,/none.key"}},
	} {
		if err := bad.apply(&apiserver.Config{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", bad, err, want)
		}
	}
}

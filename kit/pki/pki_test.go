package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestIssue(t *testing.T) {
	for _, a := range []Algorithm{ECDSA, RSA2048} {
		ca, err := NewCA("kubernetes", a)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := ca.Issue(Request{CommonName: "kube-apiserver", Hosts: []string{"127.0.0.1", "kubernetes.default"}, Server: true, Life: 100 * 365 * 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"127.0.0.1", "kubernetes.default"} {
			if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), DNSName: host}); err != nil {
				t.Errorf("%s: %s: %v", a, host, err)
			}
		}
		if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
			t.Error("a server's certificate passed as a client's")
		}
		if leaf.Cert.NotAfter.After(ca.Cert.NotAfter) {
			t.Error("the leaf outlives its authority")
		}
		if _, err := leaf.Issue(Request{CommonName: "x"}); err == nil {
			t.Error("a leaf signed")
		}
	}
}

func TestFiles(t *testing.T) {
	for _, a := range []Algorithm{ECDSA, RSA2048} {
		dir := filepath.Join(t.TempDir(), "pki")
		made := 0
		mk := func() (*Pair, error) { made++; return NewCA("etcd-ca", a) }
		first, err := LoadOrMake(dir, "ca", mk)
		if err != nil {
			t.Fatal(err)
		}
		second, err := LoadOrMake(dir, "ca", mk)
		if err != nil || made != 1 || !second.Cert.Equal(first.Cert) {
			t.Fatalf("made %d, %v", made, err)
		}
		if st, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("key mode: %v %v", st, err)
		}
		text, _ := os.ReadFile(filepath.Join(dir, "ca.key"))
		publics, err := DecodePublics(text)
		if err != nil || len(publics) != 1 {
			t.Fatalf("publics: %v", err)
		}
		id1, _ := KeyID(publics[0])
		id2, _ := KeyID(first.Cert.PublicKey)
		if id1 != id2 {
			t.Error("key ids differ")
		}
		if !strings.HasPrefix(Hash(first.Cert), "sha256:") {
			t.Error(Hash(first.Cert))
		}
		other, _ := NewCA("other", a)
		if err := (&Pair{Cert: first.Cert, Key: other.Key}).Matches(); err == nil {
			t.Error("a foreign key matched")
		}
	}
}

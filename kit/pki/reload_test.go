package pki

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	ca, err := NewCA("ca", "")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, both bool, when time.Time) {
		t.Helper()
		p, err := ca.Issue(Request{CommonName: name, Server: true, Hosts: []string{"localhost"}})
		if err != nil {
			t.Fatal(err)
		}
		key, err := EncodeKey(p.Key)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(certFile, EncodeCerts(p.Cert), 0o600)
		os.Chtimes(certFile, when, when)
		if both {
			os.WriteFile(keyFile, key, 0o600)
			os.Chtimes(keyFile, when, when)
		}
	}
	get := Reloaded(certFile, keyFile)
	if _, err := get(); err == nil {
		t.Fatal("no files, no error")
	}
	name := func() string {
		t.Helper()
		c, err := get()
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.Subject.CommonName
	}
	now := time.Now()
	write("one", true, now)
	if name() != "one" {
		t.Error("not read")
	}
	write("two", false, now.Add(time.Second))
	if got := name(); got != "one" {
		t.Errorf("a certificate without its key: %s", got)
	}
	write("three", true, now.Add(2*time.Second))
	if got := name(); got != "three" {
		t.Errorf("after a change: %s", got)
	}
}

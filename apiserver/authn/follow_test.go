package authn

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"context"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// TestAuthoritiesAreFollowed: a bundle that changes counts without a restart; one
// that is wrong changes nothing.
func TestAuthoritiesAreFollowed(t *testing.T) {
	var cas, certs [2]*pki.Pair
	for i, name := range []string{"old", "new"} {
		var err error
		if cas[i], err = pki.NewCA(name, ""); err != nil {
			t.Fatal(err)
		}
		if certs[i], err = cas[i].Issue(pki.Request{CommonName: "ann", Client: true}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(cas[0].CertPEM())
	p := NewPool(cas[0].Cert)
	accepts := func(i int) bool {
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certs[i].Cert}}
		_, err := p.verify(r)
		return err == nil
	}
	if !accepts(0) || accepts(1) {
		t.Fatalf("at first: %v %v", accepts(0), accepts(1))
	}
	var told atomic.Int64
	g := run.New(t.Context())
	g.Go("follow", func(ctx context.Context) error {
		return p.Follow(ctx, file, nil, func() { told.Add(1) }, slog.New(slog.DiscardHandler))
	})
	defer func() { g.Stop(); g.Wait() }()
	eventually(t, func() bool {
		// The watch may begin after the first change: it is made again until seen.
		write(pki.EncodeCerts(cas[0].Cert, cas[1].Cert))
		clock.Sleep(t.Context(), 300*time.Millisecond)
		return accepts(0) && accepts(1)
	}, func() string { return "a second authority is not taken" })
	write([]byte("no certificate"))
	write(cas[1].CertPEM())
	eventually(t, func() bool { return !accepts(0) && accepts(1) }, func() string { return "the old authority is still believed" })
	eventually(t, func() bool { return told.Load() == 2 }, func() string { return "nobody was told of the changes" })
}

package apiserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/authn"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
)

// must is for what cannot fail.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A server that runs shows the certificate it has now, believes the authorities of
// clients and of front proxies that it has now, and lets connect whom its limits
// of TLS allow.
func TestTLSOfARunningServer(t *testing.T) {
	pair := must[*pki.Pair](t)
	authority := func(name string) *pki.Pair { return pair(pki.NewCA(name, "")) }
	servers, one, two, proxies, proxies2 := authority("servers"), authority("one"), authority("two"), authority("proxies"), authority("proxies2")
	var shown atomic.Pointer[tls.Certificate]
	show := func(name string) {
		c := pair(servers.Issue(pki.Request{CommonName: name, Server: true, Hosts: []string{"127.0.0.1"}})).TLS()
		shown.Store(&c)
	}
	show("first")
	clients, front := authn.NewPool(one.Cert), authn.NewPool(proxies.Cert)
	union := authn.New(authn.Config{ClientCA: clients, RequestHeader: &authn.RequestHeader{
		CA: front, UserHeaders: []string{"X-Remote-User"}, GroupHeaders: []string{"X-Remote-Group"},
	}})
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	s := newServerWith(t, apiserver.Config{
		Listener: l, MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil },
		ClientCAs: func() *x509.CertPool {
			all := x509.NewCertPool()
			for _, p := range []*authn.Pool{clients, front} {
				for _, c := range p.Certs() {
					all.AddCert(c)
				}
			}
			return all
		},
	}, union)
	g := run.New(context.Background())
	g.Go("server", s.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	<-s.Serving()

	// ask returns the status, and the common name that the server shows.
	ask := func(limit func(*tls.Config), by *pki.Pair, head http.Header) (int, string, error) {
		conf := &tls.Config{RootCAs: servers.Pool()}
		if by != nil {
			conf.Certificates = []tls.Certificate{pair(by.Issue(pki.Request{CommonName: "jane", Organizations: []string{"devs"}, Client: true})).TLS()}
		}
		if limit != nil {
			limit(conf)
		}
		tr := &http.Transport{TLSClientConfig: conf}
		defer tr.CloseIdleConnections()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+l.Addr().String()+"/version", nil)
		for k, v := range head {
			r.Header[k] = v
		}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.TLS.PeerCertificates[0].Subject.CommonName, nil
	}
	is := func(what string, code int, name string, limit func(*tls.Config), by *pki.Pair, head http.Header) {
		t.Helper()
		if got, shows, err := ask(limit, by, head); err != nil || got != code || shows != name {
			t.Errorf("%s: %d by %q, %v; want %d by %q", what, got, shows, err, code, name)
		}
	}
	is("a client's certificate", 200, "first", nil, one, nil)
	is("of an authority nobody knows yet", 401, "first", nil, two, nil)
	is("none", 401, "first", nil, nil, nil)
	show("second")
	is("after the server's certificate changed", 200, "second", nil, one, nil)
	clients.Set(two.Cert)
	is("after the clients' authority changed", 200, "second", nil, two, nil)
	is("of the authority that was", 401, "second", nil, one, nil)
	as := http.Header{"X-Remote-User": {"ann"}}
	is("a front proxy", 200, "second", nil, proxies, as)
	is("a client that plays front proxy, taken for itself", 200, "second", nil, two, as)
	front.Set(proxies2.Cert)
	is("a front proxy of the authority that was", 401, "second", nil, proxies, as)
	is("a front proxy of the new one", 200, "second", nil, proxies2, as)

	for what, limit := range map[string]func(*tls.Config){
		"TLS 1.1": func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		"another cipher": func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
		},
	} {
		if _, _, err := ask(limit, two, nil); err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("%s: %v", what, err)
		}
	}
	is("TLS 1.2 with the cipher", 200, "second", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, two, nil)
}

// Package httpx holds the small HTTP servers that many programs have.
//
// Job: health, metrics and the settings in effect on an address, with bounds on
// what a client may cost.
//
// Not its job: the API server's and the kubelet's own servers.
package httpx

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sampan-dev/sampan/kit/pki"
)

// Pages are what a component says of itself. Zero fields leave their page out,
// but for health: a component without Health is well while it answers.
type Pages struct {
	Health  func(ctx context.Context) error
	Metrics prometheus.Gatherer
	Config  any // shown at /configz as JSON
	// Guard, if set, decides who sees more than health: it answers a request
	// that it refuses, and says whether it let it pass.
	Guard func(w http.ResponseWriter, r *http.Request) bool
}

// Handler serves /healthz, /livez, /readyz, /metrics and /configz.
func (p Pages) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		mux.HandleFunc(path, p.health)
	}
	if p.Metrics != nil {
		mux.Handle("/metrics", p.guarded(promhttp.HandlerFor(p.Metrics, promhttp.HandlerOpts{})))
	}
	if p.Config != nil {
		mux.Handle("/configz", p.guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(p.Config)
		})))
	}
	return mux
}

func (p Pages) health(w http.ResponseWriter, r *http.Request) {
	if p.Health != nil {
		if err := p.Health(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	_, _ = io.WriteString(w, "ok")
}

func (p Pages) guarded(h http.Handler) http.Handler {
	if p.Guard == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Guard(w, r) {
			h.ServeHTTP(w, r)
		}
	})
}

// ListenAndServe serves h at addr until ctx ends.
func ListenAndServe(ctx context.Context, addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return Serve(ctx, l, h)
}

// ListenAndServeTLS is ListenAndServe over TLS. It asks clients for a
// certificate and leaves judging it to h.
func ListenAndServeTLS(ctx context.Context, addr string, h http.Handler, certificate func() (*tls.Certificate, error)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	cfg := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		ClientAuth:     tls.RequestClientCert, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	}
	return Serve(ctx, tls.NewListener(l, cfg), h)
}

// Certificate returns a certificate made for the occasion: who asks for one
// that nobody signed does not verify it either.
func Certificate(name string) (func() (*tls.Certificate, error), error) {
	ca, err := pki.NewCA(name+"-ca", "")
	if err != nil {
		return nil, err
	}
	leaf, err := ca.Issue(pki.Request{CommonName: name, Server: true, Hosts: []string{"localhost", "127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw, ca.Cert.Raw}, PrivateKey: leaf.Key}
	return func() (*tls.Certificate, error) { return cert, nil }, nil
}

// ListenAndStream is ListenAndServe for answers that never end, such as watches:
// only a request's beginning is bounded in time.
func ListenAndStream(ctx context.Context, addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return serve(ctx, l, &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 64 << 10})
}

// Serve serves h on l until ctx ends, with bounds that keep slow or idle
// clients from holding the server.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return serve(ctx, l, &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 64 << 10})
}

func serve(ctx context.Context, l net.Listener, s *http.Server) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

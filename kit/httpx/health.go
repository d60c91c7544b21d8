// Package httpx holds the small HTTP servers that many programs have.
//
// Job: health and metrics on an address, with bounds on what a client may cost.
//
// Not its job: the API server's and the kubelet's own servers.
package httpx

import (
	"context"
	"crypto/tls"
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

// Health serves /healthz, /livez, /readyz and /metrics at addr until ctx ends.
func Health(ctx context.Context, addr string, metrics prometheus.Gatherer) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	return Serve(ctx, l, healthMux(metrics))
}

// SecureHealth is Health over TLS, with a certificate made for the occasion.
func SecureHealth(ctx context.Context, addr, name string, metrics prometheus.Gatherer) error {
	ca, err := pki.NewCA(name+"-ca", "")
	if err != nil {
		return err
	}
	leaf, err := ca.Issue(pki.Request{CommonName: name, Server: true, Hosts: []string{"localhost", "127.0.0.1"}})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	cert := tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw, ca.Cert.Raw}, PrivateKey: leaf.Key}
	return Serve(ctx, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), healthMux(metrics))
}

func healthMux(metrics prometheus.Gatherer) *http.ServeMux {
	mux := http.NewServeMux()
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	}
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

// Serve serves h on l until ctx ends, with bounds that keep slow or idle
// clients from holding the server.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 90 * time.Second, MaxHeaderBytes: 64 << 10}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

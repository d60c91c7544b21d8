package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"

	"github.com/sampan-dev/sampan/balance"
	"github.com/sampan-dev/sampan/client"
)

// loopback is where a node's own programs reach its balancer; pods do so at the
// node's address.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// newBalancer makes the node's balancer over the API servers: those named, and
// those that an earlier run knew.
func (s *session) newBalancer(authorities *x509.CertPool, prefer string, servers ...string) (err error) {
	if s.BalancerPort == 0 {
		return nil
	}
	s.balancer, err = balance.New(balance.Config{
		Listen: []string{address(loopback, s.BalancerPort), address(s.NodeIP, s.BalancerPort)}, Servers: servers, Prefer: prefer,
		File: s.path("servers"), TLS: &tls.Config{RootCAs: authorities, ServerName: apiName, MinVersion: tls.VersionTLS12},
	}, s.metrics, s.log)
	return err
}

// apiName is in every API server's certificate.
const apiName = "kubernetes"

// joinedBalancer is newBalancer of a node without a control plane.
func (s *session) joinedBalancer() error {
	text, err := os.ReadFile(s.CAFile)
	if err != nil {
		return fmt.Errorf("--certificate-authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("--certificate-authority: %s holds no certificate", s.CAFile)
	}
	u, err := url.Parse(s.Join)
	if err != nil {
		return fmt.Errorf("--join: %w", err)
	}
	at := u.Host
	if u.Port() == "" {
		at += ":443"
	}
	return s.newBalancer(pool, "", at)
}

// ServerReady asks an API server whether it is ready, and knows it by authorities;
// none takes whoever answers, on loopback.
func ServerReady(authorities *x509.CertPool, at string) func(context.Context) error {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: authorities, ServerName: apiName, InsecureSkipVerify: authorities == nil, MinVersion: tls.VersionTLS12}}}
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(r)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			return fmt.Errorf("/readyz: %s", resp.Status)
		}
		return nil
	}
}

// server is how a node without a control plane reaches the API.
func (s *session) server() client.Config {
	c := client.Config{Servers: []string{s.Join}, CAFile: s.CAFile}
	if s.balancer != nil {
		c.Servers, c.ServerName = []string{"https://" + address(loopback, s.BalancerPort)}, apiName
	}
	return c
}

// listening waits until the balancer, if there is one, takes connections.
func (s *session) listening(ctx context.Context) error {
	if s.balancer == nil {
		return nil
	}
	_, err := s.balancer.Addrs(ctx)
	return err
}

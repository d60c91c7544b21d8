package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
)

const (
	// maxAnswer bounds what is read of a hook's answer.
	maxAnswer = 16 << 20
	// maxClients bounds how many connections pools are kept.
	maxClients  = 512
	dialTimeout = 5 * time.Second
	idleTimeout = 90 * time.Second
	idlePerHost = 25
	// maxErrorText bounds what is shown of an answer that is no review.
	maxErrorText = 2048
)

// caller sends questions. Hooks at one address share connections.
type caller struct {
	reach reach
	shown map[string]Shown // by the kind of configuration

	mu      sync.Mutex
	clients map[string]*http.Client
}

func newCaller(back request.Backend, shown map[string]Shown) *caller {
	return &caller{reach: reach{back}, shown: shown, clients: map[string]*http.Client{}}
}

// address is where a hook is called, without the query.
func address(c *admissionv1.WebhookClientConfig) (*url.URL, error) {
	if s := c.Service; s != nil {
		port := int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		u := &url.URL{Scheme: "https", Host: net.JoinHostPort(serverName(s), strconv.Itoa(int(port))), Path: "/"}
		if s.Path != nil && *s.Path != "" {
			u.Path = *s.Path
		}
		return u, nil
	}
	if c.URL == nil {
		return nil, errors.New("webhook configuration must have either service or URL")
	}
	u, err := url.Parse(*c.URL)
	if err != nil {
		return nil, fmt.Errorf("Unparsable URL: %w", err)
	}
	return u, nil
}

func serverName(s *admissionv1.ServiceReference) string { return s.Name + "." + s.Namespace + ".svc" }

// client returns the client of an address, whose TLS trusts what the
// configuration says, and which shows what the server is to show there.
func (c *caller) client(h *hook, u *url.URL) (*http.Client, error) {
	cfg, shown := &h.client, c.shown[h.kind]
	key := u.Host + "\x00" + string(cfg.CABundle)
	if shown != nil {
		key = h.kind + "\x00" + key
	}
	if cfg.Service == nil {
		key += "\x00url"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.clients[key]; ok {
		return known, nil
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	if len(cfg.CABundle) > 0 {
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(cfg.CABundle) {
			return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	t := &http.Transport{
		TLSClientConfig: trust, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout * 2,
		IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: idlePerHost,
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
	}
	if s := cfg.Service; s != nil {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return c.reach.dial(ctx, s, addr) }
	}
	var rt http.RoundTripper = t
	if shown != nil {
		certificate, wrap, err := shown(hostPort(u))
		if err != nil {
			return nil, err
		}
		trust.GetClientCertificate = certificate
		if wrap != nil {
			rt = wrap(t)
		}
	}
	if len(c.clients) >= maxClients { // configurations came and went: begin again
		for k, old := range c.clients {
			old.CloseIdleConnections()
			delete(c.clients, k)
		}
	}
	// A redirect would carry the object to a place nobody configured.
	client := &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.clients[key] = client
	return client, nil
}

// hostPort is whom a user of the configuration is named after.
func hostPort(u *url.URL) string {
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}

func (c *caller) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.clients {
		client.CloseIdleConnections()
	}
}

// post asks a hook and returns its answer's body. ctx ends in time.
func (c *caller) post(ctx context.Context, h *hook, body []byte, timeout time.Duration) ([]byte, error) {
	u, err := address(&h.client)
	if err != nil {
		return nil, err
	}
	client, err := c.client(h, u)
	if err != nil {
		return nil, err
	}
	if timeout > 0 {
		q := u.Query()
		q.Set("timeout", ((timeout + time.Second - 1) / time.Second * time.Second).String())
		u.RawQuery = q.Encode()
	}
	rq, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	rq.Header.Set("Content-Type", "application/json")
	rq.Header.Set("Accept", "application/json, */*")
	rq.Header.Set("User-Agent", "kube-apiserver-admission")
	rq.Header["Idempotency-Key"] = nil // not sent: a connection found closed may be replaced
	resp, err := client.Do(rq)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("unexpected error when reading response body. Please retry. Original error: %w", err)
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if resp.StatusCode < http.StatusOK || resp.StatusCode > http.StatusPartialContent {
		return nil, answered(resp, data)
	}
	return data, nil
}

// answered words an answer that is an error.
func answered(resp *http.Response, data []byte) error {
	var s metav1.Status
	if json.Unmarshal(data, &s) == nil && s.Kind == "Status" && s.Status == metav1.StatusFailure {
		return &apierrors.StatusError{ErrStatus: s}
	}
	message := "unknown"
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || strings.HasPrefix(media, "text/") || media == "application/json" {
		message = strings.TrimSpace(string(data[:min(len(data), maxErrorText)]))
	}
	after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return apierrors.NewGenericServerResponse(resp.StatusCode, http.MethodPost, schema.GroupResource{}, "", message, after, true)
}

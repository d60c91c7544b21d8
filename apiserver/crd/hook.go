package crd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

// Dialer connects to a port of a service of the cluster.
type Dialer func(ctx context.Context, namespace, name string, port int32) (net.Conn, error)

// maxAnswer bounds what a webhook may answer.
const maxAnswer = 64 << 20

// hookClient calls one webhook.
type hookClient struct {
	config *apiextensionsv1.WebhookClientConfig
	dialer Dialer
	make   func() (*http.Client, string, error)
}

func newHookClient(d Dialer, c *apiextensionsv1.WebhookClientConfig) *hookClient {
	h := &hookClient{config: c, dialer: d}
	var mu sync.Mutex
	var client *http.Client
	var address string
	h.make = func() (*http.Client, string, error) {
		mu.Lock()
		defer mu.Unlock()
		if client != nil {
			return client, address, nil
		}
		var err error
		client, address, err = h.connect()
		return client, address, err
	}
	return h
}

// connect prepares a client that trusts the definition's authorities and finds
// a service by its name inside the cluster.
func (h *hookClient) connect() (*http.Client, string, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := bytes.TrimSpace(h.config.CABundle); len(ca) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			return nil, "", errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	t := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 25}
	t.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	var at url.URL
	switch s := h.config.Service; {
	case s != nil:
		port := int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		c.ServerName = s.Name + "." + s.Namespace + ".svc"
		at = url.URL{Scheme: "https", Host: net.JoinHostPort(c.ServerName, strconv.Itoa(int(port)))}
		if s.Path != nil {
			at.Path = *s.Path
		}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			if h.dialer == nil {
				return nil, fmt.Errorf("service %s/%s: no services here", s.Namespace, s.Name)
			}
			return h.dialer(ctx, s.Namespace, s.Name, port)
		}
	case h.config.URL != nil:
		u, err := url.Parse(*h.config.URL)
		if err != nil {
			return nil, "", fmt.Errorf("unable to parse URL: %w", err)
		}
		at = *u
	default:
		return nil, "", errors.New("webhook configuration must have either service or URL")
	}
	q := at.Query()
	q.Set("timeout", conversionTimeout.String())
	at.RawQuery = q.Encode()
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, at.String(), nil
}

// post sends one document and reads the answer.
func (h *hookClient) post(ctx context.Context, in, out any) error {
	client, address, err := h.make()
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", api.JSON)
	r.Header.Set("Accept", api.JSON+", */*")
	r.Header.Set("User-Agent", "kube-apiserver-admission")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("unexpected error when reading response body. Please retry. Original error: %w", err)
	case len(data) > maxAnswer:
		return errors.New("the webhook's answer is too large")
	case resp.StatusCode < 200 || resp.StatusCode > 206:
		return refusal(resp.StatusCode, data)
	}
	return json.Unmarshal(data, out)
}

// refusal is an answer that is no success: a Status, or whatever it was.
func refusal(code int, body []byte) error {
	var s metav1.Status
	if json.Unmarshal(body, &s) == nil && s.Kind == "Status" && s.Status != "" {
		return &apierrors.StatusError{ErrStatus: s}
	}
	return apierrors.NewGenericServerResponse(code, "POST", schema.GroupResource{}, "", string(body), 0, true)
}

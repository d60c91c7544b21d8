// Package stream serves the subresources that are not views of an object: logs,
// exec, attach, port forwarding and proxies, which go through to kubelets, pods
// and services; and bindings, evictions and service account tokens.
//
// Job: find the place to connect to, check the options, carry the bytes.
//
// Not its job: running commands (the kubelet), authorization, admission.
//
// Invariants: kubelets are spoken to over TLS with the server's own client
// certificate; what a client sent to authenticate itself goes no further.
package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Config says how to reach kubelets and pods.
type Config struct {
	// KubeletTLS has the client certificate shown to kubelets, and RootCAs when
	// their serving certificates are to be verified.
	KubeletTLS *tls.Config
	// Dial reaches nodes, pods and services; nil is the ordinary network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// AddressTypes are the node addresses tried, in order of preference.
	AddressTypes []corev1.NodeAddressType
	// MaxTokenLife bounds service account tokens; 0 is no bound.
	MaxTokenLife time.Duration
	// ExactTokens never gives mounted tokens a longer life than was asked for.
	ExactTokens bool
	// Streams ends when the server does: long streams end with it.
	Streams context.Context //nolint:containedctx // the server's life, not a request's
}

// Streams serves the connect subresources.
type Streams struct {
	c       Config
	back    request.Backend
	tokens  request.TokenIssuer
	kubelet *http.Transport // to kubelets
	plain   *http.Transport // to pods and services
}

// New returns the streams; tokens may be nil when no key signs tokens.
func New(c Config, back request.Backend, tokens request.TokenIssuer) *Streams {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
	}
	if c.AddressTypes == nil {
		c.AddressTypes = []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName}
	}
	if c.Streams == nil {
		c.Streams = context.Background()
	}
	kubelet := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.KubeletTLS != nil {
		kubelet = c.KubeletTLS.Clone()
	}
	if kubelet.RootCAs == nil {
		kubelet.InsecureSkipVerify = true // as upstream without --kubelet-certificate-authority
	}
	return &Streams{
		c: c, back: back, tokens: tokens,
		// HTTP/1.1 only: upgrades need it.
		kubelet: &http.Transport{DialContext: c.Dial, TLSClientConfig: kubelet, MaxIdleConnsPerHost: 4, IdleConnTimeout: idleTimeout},
		plain: &http.Transport{
			DialContext: c.Dial, MaxIdleConnsPerHost: 4, IdleConnTimeout: idleTimeout,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // pods have no names to verify
		},
	}
}

const (
	dialTimeout = 30 * time.Second
	keepAlive   = 30 * time.Second
	idleTimeout = 90 * time.Second
	kubeletPort = 10250
)

// Connectors returns what serves each connect subresource, by "resource/sub".
func (s *Streams) Connectors() map[string]request.Connector {
	return map[string]request.Connector{
		"pods/log":         connector(s.log),
		"pods/exec":        connector(s.exec),
		"pods/attach":      connector(s.attach),
		"pods/portforward": connector(s.portForward),
		"pods/proxy":       connector(s.podProxy),
		"services/proxy":   connector(s.serviceProxy),
		"nodes/proxy":      connector(s.nodeProxy),
	}
}

// Posters returns what serves each subresource that takes an object, by "resource/sub".
func (s *Streams) Posters() map[string]request.Poster {
	return map[string]request.Poster{
		"pods/binding":          poster(s.bind),
		"pods/eviction":         poster(s.evict),
		"serviceaccounts/token": poster(s.token),
	}
}

type connector func(w http.ResponseWriter, r *http.Request, i *request.Info, obj api.Object) error

// Connect answers with the error the function returns before it wrote anything.
func (c connector) Connect(w http.ResponseWriter, r *http.Request, i *request.Info, obj api.Object) {
	if err := c(w, r, i, obj); err != nil {
		writeError(w, err)
	}
}

// writeError sends a Status. Clients of streams speak JSON.
func writeError(w http.ResponseWriter, err error) {
	status := apierrors.NewInternalError(err)
	if s := (*apierrors.StatusError)(nil); errors.As(err, &s) {
		status = s
	}
	out := status.ErrStatus.DeepCopy()
	api.SetKind(out, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	w.Header().Set("Content-Type", api.JSON)
	w.WriteHeader(int(out.Code))
	_ = api.Encode(api.FormatJSON, out, w) // the client may be gone
}

// responder turns a proxy's failure into a Status.
type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) { writeError(w, err) }

// forward proxies r to location, upgrades included.
func (s *Streams) forward(w http.ResponseWriter, r *http.Request, location *url.URL, t http.RoundTripper, wrap, upgrade bool) {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	p := utilproxy.NewUpgradeAwareHandler(location, t, wrap, upgrade, responder{})
	p.UseLocationHost = !wrap
	p.ServeHTTP(w, r)
}

// place returns the address of a node's kubelet.
func (s *Streams) place(ctx context.Context, name string) (string, error) {
	obj, err := s.back.Get(ctx, schema.GroupResource{Resource: "nodes"}, "", name)
	if err != nil {
		return "", err
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return "", fmt.Errorf("unexpected type %T", obj)
	}
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = kubeletPort
	}
	for _, t := range s.c.AddressTypes {
		for _, a := range node.Status.Addresses {
			if a.Type == t && a.Address != "" {
				return net.JoinHostPort(a.Address, strconv.Itoa(port)), nil
			}
		}
	}
	return "", fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses)
}

// pod returns obj as the pod it must be.
func pod(obj api.Object) (*corev1.Pod, error) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a pod: %T", obj))
	}
	return p, nil
}

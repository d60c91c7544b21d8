package client

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config says where an API server is and who asks.
type Config struct {
	// Servers are base URLs; the first that answers is used, and the next when
	// it stops answering.
	Servers []string

	CAFile string // trusted authorities, PEM
	CAData []byte
	// CertFile and KeyFile are this client's certificate; they are read again when they change.
	CertFile, KeyFile string
	CertData, KeyData []byte
	ServerName        string // expected in the server's certificate, "" is the URL's host
	Insecure          bool   // do not verify the server

	BearerToken     string
	BearerTokenFile string // read again when it changes

	UserAgent string        // "" is sampan
	Timeout   time.Duration // of one request that is no watch; 0 is none
	JSON      bool          // never speak protobuf
	// Impersonate acts as another user.
	Impersonate rest.ImpersonationConfig
}

// Check tells what is wrong with the configuration.
func (c *Config) Check() error {
	if len(c.Servers) == 0 {
		return fmt.Errorf("client: no server")
	}
	for _, s := range c.Servers {
		if u, err := url.Parse(s); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return fmt.Errorf("client: server %q: not an http or https URL", s)
		}
	}
	return nil
}

func (c *Config) rest() *rest.Config {
	return &rest.Config{
		Host: c.Servers[0], BearerToken: c.BearerToken, BearerTokenFile: c.BearerTokenFile,
		Impersonate: c.Impersonate,
		TLSClientConfig: rest.TLSClientConfig{
			Insecure: c.Insecure, ServerName: c.ServerName, CAFile: c.CAFile, CAData: c.CAData,
			CertFile: c.CertFile, KeyFile: c.KeyFile, CertData: c.CertData, KeyData: c.KeyData,
		},
	}
}

// New returns a client of the API servers that c names.
func New(c Config) (*HTTP, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	h, err := rest.HTTPClientFor(c.rest())
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return newHTTP(h, c), nil
}

// FromKubeconfig returns a client as the kubeconfig file at path says; context
// "" is its current one. With path "" the usual places are looked at:
// $KUBECONFIG, ~/.kube/config, and a pod's service account.
func FromKubeconfig(path, context string) (*HTTP, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	rc, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("client: kubeconfig: %w", err)
	}
	return FromREST(rc)
}

// FromREST returns a client as client-go's configuration says.
func FromREST(rc *rest.Config) (*HTTP, error) {
	h, err := rest.HTTPClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	host := rc.Host
	if !strings.Contains(host, "://") {
		scheme := "http://"
		if rest.IsConfigTransportTLS(*rc) {
			scheme = "https://"
		}
		host = scheme + host
	}
	c := Config{Servers: []string{host}, UserAgent: rc.UserAgent, Timeout: rc.Timeout}
	if err := c.Check(); err != nil {
		return nil, err
	}
	return newHTTP(h, c), nil
}

func newHTTP(h *http.Client, c Config) *HTTP {
	s := &servers{}
	for _, u := range c.Servers {
		s.urls = append(s.urls, strings.TrimRight(u, "/"))
	}
	if c.UserAgent == "" {
		c.UserAgent = "sampan"
	}
	return &HTTP{http: h, servers: s, agent: c.UserAgent, timeout: c.Timeout, json: c.JSON}
}

// FromKubeconfigAt is FromKubeconfig's current context with another server;
// server "" keeps the file's.
func FromKubeconfigAt(path, server string) (*HTTP, error) {
	if server == "" {
		return FromKubeconfig(path, "")
	}
	rc, err := clientcmd.BuildConfigFromFlags(server, path)
	if err != nil {
		return nil, fmt.Errorf("client: kubeconfig: %w", err)
	}
	return FromREST(rc)
}

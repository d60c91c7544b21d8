package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/transport"
)

// Shown is what a client shows of itself to a host and port: a certificate, when
// certificate is not nil, and what wrap puts into each request.
type Shown = func(hostPort string) (certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error), wrap func(http.RoundTripper) http.RoundTripper, err error)

// HookUsers reads a kubeconfig whose users are named by the webhooks they are
// shown to: "HOST:PORT", "HOST", "*.DOMAIN", or "*" for all others, and after
// that the current context's.
func HookUsers(path string) (Shown, error) {
	k, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}).Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return func(hostPort string) (func(*tls.CertificateRequestInfo) (*tls.Certificate, error), func(http.RoundTripper) http.RoundTripper, error) {
		u := hookUser(k, hostPort)
		if u == nil {
			return nil, nil, nil
		}
		tc, err := hookTransport(u)
		if err != nil {
			return nil, nil, err
		}
		show, err := transport.TLSConfigFor(tc)
		if err != nil {
			return nil, nil, err
		}
		wrap := func(rt http.RoundTripper) http.RoundTripper {
			wrapped, err := transport.HTTPWrappersForConfig(tc, rt)
			if err != nil {
				return failing{err}
			}
			return wrapped
		}
		if show == nil {
			return nil, wrap, nil
		}
		return show.GetClientCertificate, wrap, nil
	}, nil
}

type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// hookUser is the user that a host and port are shown; nil is nobody.
func hookUser(k *clientcmdapi.Config, hostPort string) *clientcmdapi.AuthInfo {
	targets := []string{hostPort}
	if host, port, err := net.SplitHostPort(hostPort); err == nil && port == "443" {
		targets = append(targets, host)
	}
	for _, target := range targets {
		if u := k.AuthInfos[target]; u != nil {
			return u
		}
		for rest := target; ; {
			_, after, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			if u := k.AuthInfos["*."+after]; u != nil {
				return u
			}
			rest = after
		}
	}
	if u := k.AuthInfos["*"]; u != nil {
		return u
	}
	if c := k.Contexts[k.CurrentContext]; c != nil {
		return k.AuthInfos[c.AuthInfo]
	}
	return nil
}

func hookTransport(u *clientcmdapi.AuthInfo) (*transport.Config, error) {
	if u.AuthProvider != nil {
		return nil, errors.New("auth provider not supported")
	}
	rc := &rest.Config{
		BearerToken: u.Token, BearerTokenFile: u.TokenFile, Username: u.Username, Password: u.Password,
		Impersonate:     rest.ImpersonationConfig{UserName: u.Impersonate, UID: u.ImpersonateUID, Groups: u.ImpersonateGroups, Extra: u.ImpersonateUserExtra},
		TLSClientConfig: rest.TLSClientConfig{CertFile: u.ClientCertificate, KeyFile: u.ClientKey, CertData: u.ClientCertificateData, KeyData: u.ClientKeyData},
		ExecProvider:    u.Exec,
	}
	if u.Token == "" && u.TokenFile != "" {
		token, err := os.ReadFile(u.TokenFile)
		if err != nil {
			return nil, err
		}
		rc.BearerToken = string(token)
	}
	return rc.TransportConfig()
}

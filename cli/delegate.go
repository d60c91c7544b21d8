package cli

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
)

// delegate asks the API server who may see a component's metrics and settings,
// as upstream's delegated authentication and authorization do.
type delegate struct {
	api    client.Interface
	caFile string
	always []string
	ca     *x509.CertPool
}

func (d *delegate) flags(c *component) {
	c.in(authnFlags).StringVar(&d.caFile, "client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated with an identity corresponding to the CommonName of the client certificate.")
	c.in(authzFlags).StringSliceVar(&d.always, "authorization-always-allow-paths", []string{"/healthz", "/readyz", "/livez"}, "A list of HTTP paths to skip during authorization, i.e. these are authorized without contacting the 'core' kubernetes server.")
	c.retired = append(c.retired, retired{why: "the API server of --kubeconfig is asked", names: []string{
		"authentication-kubeconfig", "authorization-kubeconfig", "authentication-token-webhook-cache-ttl", "authorization-webhook-cache-authorized-ttl", "authorization-webhook-cache-unauthorized-ttl",
		"requestheader-client-ca-file", "requestheader-allowed-names", "requestheader-username-headers", "requestheader-group-headers", "requestheader-extra-headers-prefix", "requestheader-uid-headers"},
		bools: []string{"authentication-skip-lookup", "authentication-tolerate-lookup-failure"}})
}

// load reads the authority of client certificates.
func (d *delegate) load() error {
	if d.caFile == "" {
		return nil
	}
	text, err := os.ReadFile(d.caFile)
	if err != nil {
		return fmt.Errorf("--client-ca-file: %w", err)
	}
	certs, err := pki.DecodeCerts(text)
	if err != nil {
		return fmt.Errorf("--client-ca-file: %s: %w", d.caFile, err)
	}
	d.ca = x509.NewCertPool()
	for _, c := range certs {
		d.ca.AddCert(c)
	}
	return nil
}

// pass answers requests that may not see the page.
func (d *delegate) pass(w http.ResponseWriter, r *http.Request) bool {
	if slices.Contains(d.always, r.URL.Path) {
		return true
	}
	user, err := d.user(r)
	if err != nil {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return false
	}
	if !d.allowed(r, user) {
		http.Error(w, fmt.Sprintf("forbidden: User %q cannot get path %q", user.Username, r.URL.Path), http.StatusForbidden)
		return false
	}
	return true
}

// user is who asks: a client certificate's subject, a token's owner, or nobody known.
func (d *delegate) user(r *http.Request) (authenticationv1.UserInfo, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && d.ca != nil {
		leaf, between := r.TLS.PeerCertificates[0], x509.NewCertPool()
		for _, c := range r.TLS.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: d.ca, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return authenticationv1.UserInfo{Username: leaf.Subject.CommonName, Groups: append(leaf.Subject.Organization, "system:authenticated")}, err
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return authenticationv1.UserInfo{Username: "system:anonymous", Groups: []string{"system:unauthenticated"}}, nil
	}
	review, err := client.Of[authenticationv1.TokenReview](d.api, "").Create(r.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	if !review.Status.Authenticated {
		return authenticationv1.UserInfo{}, fmt.Errorf("token: %s", review.Status.Error)
	}
	return review.Status.User, nil
}

func (d *delegate) allowed(r *http.Request, u authenticationv1.UserInfo) bool {
	if slices.Contains(u.Groups, "system:masters") {
		return true
	}
	review, err := client.Of[authorizationv1.SubjectAccessReview](d.api, "").Create(r.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: u.Username, Groups: u.Groups,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: r.URL.Path, Verb: strings.ToLower(r.Method)},
		},
	})
	return err == nil && review.Status.Allowed
}

// loopback says whether an address is of this machine only.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

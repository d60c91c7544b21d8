package certificates

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kit/pki"
)

// legacyUnknown is the signer of requests from before there were signers. The
// v1 API does not take it, but objects stored earlier may have it.
const legacyUnknown = "kubernetes.io/legacy-unknown"

func has(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

// sameUsages says whether usages are digital signature and auth, with or
// without key encipherment.
func sameUsages(usages []certificatesv1.KeyUsage, auth certificatesv1.KeyUsage) bool {
	set := map[certificatesv1.KeyUsage]bool{}
	for _, u := range usages {
		set[u] = true
	}
	delete(set, certificatesv1.UsageKeyEncipherment)
	return len(set) == 2 && set[certificatesv1.UsageDigitalSignature] && set[auth]
}

// The words of upstream's refusals.
var (
	errOrganization = errors.New("subject organization is not system:nodes")
	errDNS          = errors.New("DNS subjectAltNames are not allowed")
	errEmail        = errors.New("Email subjectAltNames are not allowed")
	errIP           = errors.New("IP subjectAltNames are not allowed")
	errURI          = errors.New("URI subjectAltNames are not allowed")
	errNoHost       = errors.New("DNS or IP subjectAltName is required")
	errCommonName   = errors.New("subject common name does not begin with system:node: ")
	errUsages       = errors.New("usages did not match")
)

const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// kubeletClient judges a request for a kubelet's client certificate.
func kubeletClient(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{nodesGroup}):
		return errOrganization
	case len(r.DNSNames) > 0:
		return errDNS
	case len(r.EmailAddresses) > 0:
		return errEmail
	case len(r.IPAddresses) > 0:
		return errIP
	case len(r.URIs) > 0:
		return errURI
	case !strings.HasPrefix(r.Subject.CommonName, nodePrefix):
		return errCommonName
	case !sameUsages(usages, certificatesv1.UsageClientAuth):
		return errUsages
	}
	return nil
}

// kubeletServing judges a request for a kubelet's server certificate.
func kubeletServing(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{nodesGroup}):
		return errOrganization
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return errNoHost
	case len(r.EmailAddresses) > 0:
		return errEmail
	case len(r.URIs) > 0:
		return errURI
	case !strings.HasPrefix(r.Subject.CommonName, nodePrefix):
		return errCommonName
	case !sameUsages(usages, certificatesv1.UsageServerAuth):
		return errUsages
	}
	return nil
}

// apiClient judges a request for a client certificate of the API server.
func apiClient(usages []certificatesv1.KeyUsage) error {
	client := false
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment:
		case certificatesv1.UsageClientAuth:
			client = true
		default:
			return errUsages
		}
	}
	if !client {
		return errUsages
	}
	return nil
}

// signable judges a request by its signer; known is false for signers that are
// somebody else's.
func signable(signer string, r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) (known bool, err error) {
	switch signer {
	case certificatesv1.KubeAPIServerClientSignerName:
		return true, apiClient(usages)
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return true, kubeletClient(r, usages)
	case certificatesv1.KubeletServingSignerName:
		return true, kubeletServing(r, usages)
	case legacyUnknown:
		return true, nil
	}
	return false, nil
}

// claim is one ground on which a request may be approved by itself.
type claim struct {
	subresource string // what the requestor must be allowed to create; "" needs no permission
	message     string
}

// claims returns the grounds that a request meets; node is the one named as the
// requestor, if it is one, and serving says whether server certificates count.
func claims(csr *certificatesv1.CertificateSigningRequest, r *x509.CertificateRequest, node *corev1.Node, serving bool) []claim {
	var out []claim
	self := csr.Spec.Username == r.Subject.CommonName
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		if kubeletClient(r, csr.Spec.Usages) != nil {
			return nil
		}
		if self {
			out = append(out, claim{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."})
		}
		out = append(out, claim{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."})
	case certificatesv1.KubeletServingSignerName:
		if serving && self && node != nil && kubeletServing(r, csr.Spec.Usages) == nil && ownAddresses(r, node) {
			out = append(out, claim{"", "Auto approving kubelet serving certificate for the node's own addresses."})
		}
	}
	return out
}

// ownAddresses says whether all hosts of a request are the node's own.
func ownAddresses(r *x509.CertificateRequest, n *corev1.Node) bool {
	own := map[string]bool{n.Name: true}
	for _, a := range n.Status.Addresses {
		own[a.Address] = true
	}
	for _, ip := range r.IPAddresses {
		if !own[ip.String()] {
			return false
		}
	}
	return !slices.ContainsFunc(r.DNSNames, func(name string) bool { return !own[name] })
}

const (
	backdate   = 5 * time.Minute // forgives clocks that are a little behind
	shortLived = 8 * time.Hour   // below it, the end is not brought forward as well
	shortest   = 10 * time.Minute
)

// life returns how long a certificate is good for.
func life(seconds *int32, longest time.Duration) time.Duration {
	if seconds == nil {
		return longest
	}
	return min(max(time.Duration(*seconds)*time.Second, shortest), longest)
}

var keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning:           x509.KeyUsageDigitalSignature,
	certificatesv1.UsageDigitalSignature:  x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment,
	certificatesv1.UsageKeyEncipherment:   x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement:      x509.KeyUsageKeyAgreement,
	certificatesv1.UsageDataEncipherment:  x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign:          x509.KeyUsageCertSign,
	certificatesv1.UsageCRLSign:           x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly:      x509.KeyUsageEncipherOnly,
	certificatesv1.UsageDecipherOnly:      x509.KeyUsageDecipherOnly,
}

var extKeyUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny:             x509.ExtKeyUsageAny,
	certificatesv1.UsageServerAuth:      x509.ExtKeyUsageServerAuth,
	certificatesv1.UsageClientAuth:      x509.ExtKeyUsageClientAuth,
	certificatesv1.UsageCodeSigning:     x509.ExtKeyUsageCodeSigning,
	certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageSMIME:           x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageIPsecEndSystem:  x509.ExtKeyUsageIPSECEndSystem,
	certificatesv1.UsageIPsecTunnel:     x509.ExtKeyUsageIPSECTunnel,
	certificatesv1.UsageIPsecUser:       x509.ExtKeyUsageIPSECUser,
	certificatesv1.UsageTimestamping:    x509.ExtKeyUsageTimeStamping,
	certificatesv1.UsageOCSPSigning:     x509.ExtKeyUsageOCSPSigning,
	certificatesv1.UsageMicrosoftSGC:    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	certificatesv1.UsageNetscapeSGC:     x509.ExtKeyUsageNetscapeServerGatedCrypto,
}

// template is the certificate that answers a request.
func template(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage, good time.Duration, now time.Time) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject: r.Subject, DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, EmailAddresses: r.EmailAddresses, URIs: r.URIs,
		NotBefore: now.Add(-backdate).UTC(), NotAfter: now.Add(good).UTC(), BasicConstraintsValid: true,
	}
	if good >= shortLived {
		t.NotAfter = t.NotAfter.Add(-backdate)
	}
	var unknown []certificatesv1.KeyUsage
	for _, u := range usages {
		if k, ok := keyUsages[u]; ok {
			t.KeyUsage |= k
		} else if e, ok := extKeyUsages[u]; ok {
			if !slices.Contains(t.ExtKeyUsage, e) {
				t.ExtKeyUsage = append(t.ExtKeyUsage, e)
			}
		} else {
			unknown = append(unknown, u)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("unrecognized usage values: %q", unknown)
	}
	slices.Sort(t.ExtKeyUsage)
	return t, nil
}

// How long requests are kept: upstream's figures.
const (
	keepDone    = time.Hour
	keepPending = 24 * time.Hour
)

// stale says whether a request is done with.
func stale(csr *certificatesv1.CertificateSigningRequest, now time.Time) bool {
	issued := len(csr.Status.Certificate) > 0
	if issued {
		if certs, err := pki.DecodeCerts(csr.Status.Certificate); err == nil && now.After(certs[0].NotAfter) {
			return true
		}
	}
	if len(csr.Status.Conditions) == 0 {
		return now.Sub(csr.CreationTimestamp.Time) > keepPending
	}
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		done := c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed || c.Type == certificatesv1.CertificateApproved && issued
		return done && now.Sub(c.LastUpdateTime.Time) > keepDone
	})
}

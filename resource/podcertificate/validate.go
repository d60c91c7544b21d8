package podcertificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/signer"
)

// Upstream's limits.
const (
	maxBundle  = 1 << 20
	maxRequest = 10 << 10
	maxChain   = 100 << 10
	maxUID     = 128

	leastSeconds    = 60 * 60
	mostSeconds     = 91 * 24 * 60 * 60
	mostOwnSeconds  = 24 * 60 * 60 // of Kubernetes' own signers
	leastRefreshGap = 10 * time.Minute
)

func validateBundle(next, prev *bundle) (errs field.ErrorList) {
	name, spec := field.NewPath("metadata", "name"), field.NewPath("spec")
	s := next.Spec.SignerName
	if s == "" {
		if strings.Contains(next.Name, ":") {
			errs = append(errs, field.Invalid(name, next.Name, `ClusterTrustBundle without signer name must not have ":" in its name`))
		} else {
			errs = append(errs, say(name, next.Name, apivalidation.NameIsDNSSubdomain(next.Name, false))...)
		}
	} else {
		prefix := strings.ReplaceAll(s, "/", ":") + ":"
		if rest, ok := strings.CutPrefix(next.Name, prefix); !ok {
			errs = append(errs, field.Invalid(name, next.Name, fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", s, prefix)))
		} else {
			errs = append(errs, say(name, next.Name, apivalidation.NameIsDNSSubdomain(rest, false))...)
		}
		errs = append(errs, signer.Validate(s, spec.Child("signerName"))...)
	}
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s, prev.Spec.SignerName, spec.Child("signerName"))...)
		if next.Spec.TrustBundle == prev.Spec.TrustBundle {
			return errs
		}
	}
	return append(errs, trusted(next.Spec.TrustBundle, spec.Child("trustBundle"))...)
}

func say(path *field.Path, value string, messages []string) (errs field.ErrorList) {
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// trusted judges a bundle's certificates.
func trusted(text string, path *field.Path) (errs field.ErrorList) {
	if len(text) > maxBundle {
		return field.ErrorList{field.TooLong(path, "", maxBundle)}
	}
	bad := func(format string, args ...any) {
		errs = append(errs, field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	var order []string
	seen := map[string][]int{}
	rest := []byte(text)
	for i := 0; ; i++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		switch {
		case b.Type != "CERTIFICATE":
			bad("entry %d has bad block type: %v", i, b.Type)
			continue
		case len(b.Headers) != 0:
			bad("entry %d has PEM block headers", i)
			continue
		}
		cert, err := x509.ParseCertificate(b.Bytes)
		switch {
		case err != nil:
			bad("entry %d does not parse as X.509", i)
		case !cert.IsCA:
			bad("entry %d does not have the CA bit set", i)
		case !cert.BasicConstraintsValid:
			bad("entry %d has invalid basic constraints", i)
		default:
			k := string(cert.Raw)
			if seen[k] == nil {
				order = append(order, k)
			}
			seen[k] = append(seen[k], i)
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if len(order) == 0 {
		bad("at least one trust anchor must be provided")
	}
	for _, k := range order {
		if len(seen[k]) > 1 {
			bad("duplicate trust anchor (indices %v)", seen[k])
		}
	}
	return errs
}

func validateRequest(next, prev *request) (errs field.ErrorList) {
	s, path := &next.Spec, field.NewPath("spec")
	if prev != nil {
		return apivalidation.ValidateImmutableField(next.Spec, prev.Spec, path)
	}
	errs = signer.Validate(s.SignerName, path.Child("signerName"))
	errs = append(errs, annotations(s.UnverifiedUserAnnotations, path.Child("unverifiedUserAnnotations"))...)
	uid := func(name, value string) {
		if value == "" {
			errs = append(errs, field.Invalid(path.Child(name), value, "must not be empty"))
		}
		if len(value) > maxUID {
			errs = append(errs, field.TooLong(path.Child(name), value, maxUID))
		}
	}
	errs = append(errs, say(path.Child("podName"), s.PodName, apivalidation.NameIsDNSSubdomain(s.PodName, false))...)
	uid("podUID", string(s.PodUID))
	errs = append(errs, say(path.Child("serviceAccountName"), s.ServiceAccountName, apivalidation.NameIsDNSSubdomain(s.ServiceAccountName, false))...)
	uid("serviceAccountUID", string(s.ServiceAccountUID))
	errs = append(errs, say(path.Child("nodeName"), string(s.NodeName), apivalidation.NameIsDNSSubdomain(string(s.NodeName), false))...)
	uid("nodeUID", string(s.NodeUID))
	at := path.Child("maxExpirationSeconds")
	if s.MaxExpirationSeconds == nil {
		return append(errs, field.Required(at, "must be set"))
	}
	most := int32(mostSeconds)
	if signer.Kubernetes(s.SignerName) {
		most = mostOwnSeconds
	}
	if n := *s.MaxExpirationSeconds; n < leastSeconds || n > most {
		errs = append(errs, field.Invalid(at, n, fmt.Sprintf("must be in the range [%d, %d]", leastSeconds, most)))
	}
	return append(errs, stub(s.StubPKCS10Request, path.Child("stubPKCS10Request"))...)
}

// annotations need a domain, for a signer must know whose they are.
func annotations(m map[string]string, path *field.Path) (errs field.ErrorList) {
	errs = apivalidation.ValidateAnnotations(m, path)
	for k := range m {
		if !strings.Contains(k, "/") {
			errs = append(errs, field.Invalid(path, k, "must be a domain-prefixed key (such as \"acme.io/foo\")"))
		}
	}
	return errs
}

// stub judges the key that a certificate is asked for, and the proof of having it.
func stub(der []byte, path *field.Path) field.ErrorList {
	bad := func(value any, message string) field.ErrorList {
		return field.ErrorList{field.Invalid(path, value, message)}
	}
	switch {
	case len(der) == 0:
		return field.ErrorList{field.Required(path, "")}
	case len(der) > maxRequest:
		return field.ErrorList{field.TooLong(path, "", maxRequest)}
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return bad(field.OmitValueType{}, "must be a valid PKCS#10 CSR")
	}
	switch key := csr.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if name := key.Params().Name; !slices.Contains([]string{"P-256", "P-384", "P-521"}, name) {
			return bad("curve "+name, "elliptic public keys must use curve P256, P384, or P521")
		}
	case *rsa.PublicKey:
		if bits := key.Size() * 8; bits != 3072 && bits != 4096 {
			return bad(fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")
		}
	default:
		return bad(field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")
	}
	if csr.CheckSignature() != nil {
		return bad(field.OmitValueType{}, "invalid signature")
	}
	return nil
}

func validateStatus(next, prev *request) (errs field.ErrorList) {
	path := field.NewPath("status")
	known := []string{certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed, certificatesv1.PodCertificateRequestConditionTypeIssued}
	n := 0
	for i, c := range next.Status.Conditions {
		at := path.Child("conditions").Index(i)
		if !slices.Contains(known, c.Type) {
			errs = append(errs, field.NotSupported(at.Child("type"), c.Type, known))
			continue
		}
		if n++; n > 1 {
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	errs = append(errs, metavalidation.ValidateConditions(next.Status.Conditions, path.Child("conditions"))...)
	if len(errs) > 0 {
		return errs
	}
	only := certificatesv1.PodCertificateRequestStatus{Conditions: next.Status.Conditions}
	switch {
	case outcome(prev) != "":
		if !equality.Semantic.DeepEqual(next.Status, prev.Status) {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, "immutable after PodCertificateRequest is issued, denied, or failed"))
		}
	case outcome(next) == certificatesv1.PodCertificateRequestConditionTypeIssued:
		return issued(next, path)
	case outcome(next) != "":
		if !equality.Semantic.DeepEqual(next.Status, only) {
			errs = append(errs, field.Invalid(path, field.OmitValueType{}, "non-condition status fields must be empty when denying or failing the PodCertificateRequest"))
		}
	case !equality.Semantic.DeepEqual(next.Status, certificatesv1.PodCertificateRequestStatus{Conditions: next.Status.Conditions}):
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "may not be set without a condition of type \"Issued\", \"Denied\", or \"Failed\""))
	}
	return errs
}

// issued judges the certificates that answer a request.
func issued(r *request, path *field.Path) field.ErrorList {
	s, at := &r.Status, path.Child("certificateChain")
	bad := func(at *field.Path, value any, message string) field.ErrorList {
		return field.ErrorList{field.Invalid(at, value, message)}
	}
	if len(s.CertificateChain) > maxChain {
		return field.ErrorList{field.TooLong(at, s.CertificateChain, maxChain)}
	}
	block, rest := pem.Decode([]byte(s.CertificateChain))
	if block == nil {
		return bad(at, s.CertificateChain, "issued certificate chain must contain at least one certificate")
	}
	var leaf *x509.Certificate
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return bad(at, s.CertificateChain, "issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil && leaf == nil {
			return bad(at, s.CertificateChain, "leaf certificate does not parse as valid X.509")
		} else if err != nil {
			return bad(at, s.CertificateChain, "intermediate certificate does not parse as valid X.509")
		}
		if leaf == nil {
			leaf = cert
		}
	}
	csr, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil || !bytes.Equal(csr.RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) {
		return bad(at, s.CertificateChain, "leaf certificate was not issued to the requested public key")
	}
	switch {
	case s.NotBefore == nil:
		return field.ErrorList{field.Required(path.Child("notBefore"), "must be present and consistent with the issued certificate")}
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		return bad(path.Child("notBefore"), s.NotBefore, "must be set to the NotBefore time encoded in the leaf certificate")
	case s.NotAfter == nil:
		return field.ErrorList{field.Required(path.Child("notAfter"), "must be present and consistent with the issued certificate")}
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		return bad(path.Child("notAfter"), s.NotAfter, "must be set to the NotAfter time encoded in the leaf certificate")
	case s.BeginRefreshAt == nil:
		return field.ErrorList{field.Required(path.Child("beginRefreshAt"), "must be present and in the range [notbefore+10min, notafter-10min]")}
	case s.BeginRefreshAt.Time.Before(s.NotBefore.Add(leastRefreshGap)), s.BeginRefreshAt.Time.After(s.NotAfter.Add(-leastRefreshGap)):
		return bad(path.Child("beginRefreshAt"), s.BeginRefreshAt, "must be in the range [notbefore+10min, notafter-10min]")
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life < leastSeconds*time.Second {
		return bad(at, s.CertificateChain, fmt.Sprintf("certificate lifetime must be >= %v", leastSeconds*time.Second))
	} else if most := r.Spec.MaxExpirationSeconds; most != nil && life > time.Duration(*most)*time.Second {
		return bad(at, s.CertificateChain, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", *most))
	}
	return nil
}

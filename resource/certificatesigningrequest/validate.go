package certificatesigningrequest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/signer"
)

// validate judges the main resource, which after creation cannot change.
func validate(r *resource.Request, next, prev *csr) field.ErrorList {
	if prev != nil {
		return nil
	}
	beta := r.Version == certificatesv1beta1.SchemeGroupVersion
	return append(validateSpec(&next.Spec, beta), validateConditions(next, false)...)
}

func validateSpec(s *certificatesv1.CertificateSigningRequestSpec, beta bool) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	if err := parse(s.Request); err != nil {
		errs = append(errs, field.Invalid(spec.Child("request"), s.Request, fmt.Sprintf("%v", err)))
	}
	if len(s.Usages) == 0 {
		errs = append(errs, field.Required(spec.Child("usages"), ""))
	}
	known := usages()
	for i, u := range s.Usages {
		at := spec.Child("usages").Index(i)
		if !beta && !slices.Contains(known, string(u)) {
			errs = append(errs, field.NotSupported(at, u, known))
		}
		if !beta && slices.Contains(s.Usages[:i], u) {
			errs = append(errs, field.Duplicate(at, u))
		}
	}
	if !beta && s.SignerName == certificatesv1beta1.LegacyUnknownSignerName {
		errs = append(errs, field.Invalid(spec.Child("signerName"), s.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, signer.Validate(s.SignerName, spec.Child("signerName"))...)
	}
	if e := s.ExpirationSeconds; e != nil && *e < 600 {
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), *e, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

// parse wants a PEM block with a request that is signed with its own key.
func parse(request []byte) error {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	cr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return cr.CheckSignature()
}

func usages() []string {
	all := []certificatesv1.KeyUsage{
		certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment,
		certificatesv1.UsageKeyEncipherment, certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment,
		certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign, certificatesv1.UsageEncipherOnly,
		certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
		certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection,
		certificatesv1.UsageSMIME, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
		certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping, certificatesv1.UsageOCSPSigning,
		certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
	}
	names := make([]string, len(all))
	for i, u := range all {
		names[i] = string(u)
	}
	slices.Sort(names)
	return names
}

// validateConditions: the three that decide are never false, and of approval
// and denial there is one. lenient says that both were there before.
func validateConditions(c *csr, lenient bool) (errs field.ErrorList) {
	path := field.NewPath("status", "conditions")
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, cond := range c.Status.Conditions {
		at := path.Index(i)
		if cond.Type == "" {
			errs = append(errs, field.Required(at.Child("type"), ""))
		}
		allowed := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		switch cond.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			allowed = []corev1.ConditionStatus{corev1.ConditionTrue}
		}
		if cond.Status == "" {
			errs = append(errs, field.Required(at.Child("status"), ""))
		} else if !slices.Contains(allowed, cond.Status) {
			errs = append(errs, field.NotSupported(at.Child("status"), cond.Status, allowed))
		}
		both := cond.Type == certificatesv1.CertificateApproved && seen[certificatesv1.CertificateDenied] ||
			cond.Type == certificatesv1.CertificateDenied && seen[certificatesv1.CertificateApproved]
		if both && !lenient {
			errs = append(errs, field.Invalid(at.Child("type"), cond.Type, "Approved and Denied conditions are mutually exclusive"))
		}
		if seen[cond.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), cond.Type))
		}
		seen[cond.Type] = true
	}
	return errs
}

func decided(c *csr) bool {
	return len(find(c, certificatesv1.CertificateApproved)) > 0 && len(find(c, certificatesv1.CertificateDenied)) > 0
}

func validateApproval(next, prev *csr) field.ErrorList {
	errs := validateConditions(next, decided(prev))
	return append(errs, validateKept(next, prev)...)
}

// validateStatus is for signers: they may not approve, and issue once.
func validateStatus(next, prev *csr) field.ErrorList {
	errs := validateConditions(next, decided(prev))
	errs = append(errs, validateKept(next, prev)...)
	conditions := field.NewPath("status", "conditions")
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied} {
		now, before := find(next, t), find(prev, t)
		switch {
		case len(now) < len(before): // said already
		case len(now) > len(before):
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not add a condition of type %q", t)))
		case !equality.Semantic.DeepEqual(now, before):
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not modify a condition of type %q", t)))
		}
	}
	certificate := field.NewPath("status", "certificate")
	if bytes.Equal(next.Status.Certificate, prev.Status.Certificate) {
		return errs
	}
	if len(prev.Status.Certificate) > 0 {
		errs = append(errs, field.Forbidden(certificate, "updates may not modify existing certificate content"))
	}
	if err := parseChain(next.Status.Certificate); err != nil {
		errs = append(errs, field.Invalid(certificate, "<certificate data>", err.Error()))
	}
	return errs
}

// validateKept keeps decisions from being taken back.
func validateKept(next, prev *csr) (errs field.ErrorList) {
	for _, t := range []certificatesv1.RequestConditionType{
		certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed,
	} {
		if len(find(next, t)) < len(find(prev, t)) {
			errs = append(errs, field.Forbidden(field.NewPath("status", "conditions"), fmt.Sprintf("updates may not remove a condition of type %q", t)))
		}
	}
	return errs
}

// parseChain wants one or more certificates in PEM, without headers.
func parseChain(chain []byte) error {
	blocks := 0
	for len(chain) > 0 {
		block, rest := pem.Decode(chain)
		if block == nil {
			break
		}
		chain = rest
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		blocks++
		if _, err := x509.ParseCertificates(block.Bytes); err != nil {
			return err
		}
	}
	if blocks == 0 {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	return nil
}

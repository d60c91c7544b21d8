// Package certificatesigningrequest defines the CertificateSigningRequest kind.
//
// Job: defaults, rules and columns of certificates.k8s.io/v1
// CertificateSigningRequest, its approval and status subresources, and the
// retired v1beta1.
//
// Not its job: who may approve or sign (admission's), and signing (controllers').
//
// Invariants: spec never changes, and says who asked as the server saw it; an
// approval, once given or denied, stays.
package certificatesigningrequest

import (
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// csr is the stored type.
type csr = certificatesv1.CertificateSigningRequest

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[csr]{
		Group: certificatesv1.GroupName, Version: "v1", Kind: "CertificateSigningRequest", Plural: "certificatesigningrequests",
		Short: []string{"csr"}, ClusterScoped: true,
		Prepare: prepare, ValidateAs: validate,
		// Any name will do that fits into a path.
		Name: func(name string, prefix bool) []string { return path.ValidatePathSegmentName(name, prefix) },
		Subs: []resource.Sub[csr]{
			{Name: "approval", Prepare: prepareApproval, Validate: validateApproval, ResetFields: []string{"spec", "status.certificate"}},
			{Name: "status", Prepare: prepareStatus, Validate: validateStatus, ResetFields: []string{"spec"}},
		},
		Columns: columns(),
		Selectable: map[string]func(*csr) string{
			"spec.signerName": func(c *csr) string { return c.Spec.SignerName },
		},
		Unconditional: true,
		ResetFields:   []string{"spec", "status"},
		Also:          []resource.Version{beta()},
	})
}

func beta() resource.Version {
	v := resource.SameShape[certificatesv1beta1.CertificateSigningRequest, csr](
		certificatesv1beta1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
		certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"))
	v.Default = func(obj api.Object) { setBetaDefaults(obj.(*certificatesv1beta1.CertificateSigningRequest)) }
	return v
}

// setBetaDefaults fills in what v1 requires of its users.
func setBetaDefaults(c *certificatesv1beta1.CertificateSigningRequest) {
	if c.Spec.Usages == nil {
		c.Spec.Usages = []certificatesv1beta1.KeyUsage{certificatesv1beta1.UsageDigitalSignature, certificatesv1beta1.UsageKeyEncipherment}
	}
	if c.Spec.SignerName == nil {
		c.Spec.SignerName = new(certificatesv1beta1.LegacyUnknownSignerName)
	}
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Status == "" {
			c.Status.Conditions[i].Status = corev1.ConditionTrue
		}
	}
}

// prepare writes down who asks. Nobody can create an approved request.
func prepare(r *resource.Request, next, prev *csr) {
	if prev != nil {
		next.Spec, next.Status = prev.Spec, prev.Status
		return
	}
	next.Spec.Username, next.Spec.UID, next.Spec.Groups = r.User, r.UID, slices.Clone(r.Groups)
	next.Spec.Extra = nil
	for k, v := range r.Extra {
		if next.Spec.Extra == nil {
			next.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		next.Spec.Extra[k] = slices.Clone(v)
	}
	next.Status = certificatesv1.CertificateSigningRequestStatus{}
}

func prepareApproval(r *resource.Request, next, prev *csr) {
	next.Spec = prev.Spec
	next.Status.Certificate = prev.Status.Certificate
	stamp(next, prev, r.Now)
}

func prepareStatus(r *resource.Request, next, prev *csr) {
	next.Spec = prev.Spec
	stamp(next, prev, r.Now)
}

// stamp fills in the times of conditions that the user left out.
func stamp(next, prev *csr, now time.Time) {
	for i := range next.Status.Conditions {
		c := &next.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = metav1.NewTime(now)
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = metav1.NewTime(now)
		for _, old := range prev.Status.Conditions {
			if old.Type == c.Type && old.Status == c.Status && !old.LastTransitionTime.IsZero() {
				c.LastTransitionTime = old.LastTransitionTime
				break
			}
		}
	}
}

func columns() []resource.Column[csr] {
	doc := func(name string) string { return resource.Doc(certificatesv1.CertificateSigningRequestSpec{}, name) }
	return []resource.Column[csr]{
		resource.NameColumn[csr](),
		resource.AgeColumn[csr](),
		{Name: "SignerName", Description: doc("signerName"), Cell: func(c *csr, _ time.Time) any { return c.Spec.SignerName }},
		{Name: "Requestor", Description: doc("request"), Cell: func(c *csr, _ time.Time) any { return c.Spec.Username }},
		{Name: "RequestedDuration", Description: doc("expirationSeconds"), Cell: func(c *csr, _ time.Time) any {
			if c.Spec.ExpirationSeconds == nil {
				return "<none>"
			}
			return duration.HumanDuration(time.Duration(*c.Spec.ExpirationSeconds) * time.Second)
		}},
		{Name: "Condition", Description: resource.Doc(certificatesv1.CertificateSigningRequestStatus{}, "conditions"), Cell: func(c *csr, _ time.Time) any { return condition(c) }},
	}
}

func condition(c *csr) string {
	has := func(t certificatesv1.RequestConditionType) bool { return len(find(c, t)) > 0 }
	text := "Pending"
	if has(certificatesv1.CertificateDenied) {
		text = "Denied"
	} else if has(certificatesv1.CertificateApproved) {
		text = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		text += ",Failed"
	}
	if len(c.Status.Certificate) > 0 {
		text += ",Issued"
	}
	return text
}

func find(c *csr, t certificatesv1.RequestConditionType) (found []certificatesv1.CertificateSigningRequestCondition) {
	for _, cond := range c.Status.Conditions {
		if cond.Type == t {
			found = append(found, cond)
		}
	}
	return found
}

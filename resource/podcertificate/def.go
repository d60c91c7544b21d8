// Package podcertificate defines how pods get certificates, and whom they trust.
//
// Job: ClusterTrustBundle, with its earlier versions, and PodCertificateRequest
// of certificates.k8s.io/v1: rules, columns, selectors.
//
// Not its job: signing; who may ask for whom (admission).
//
// Invariants: a request, once answered, never changes; a bundle holds only
// certificates of authorities, each once.
package podcertificate

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1alpha1 "k8s.io/api/certificates/v1alpha1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

type (
	bundle  = certificatesv1.ClusterTrustBundle
	request = certificatesv1.PodCertificateRequest
)

// Kinds are both kinds.
func Kinds() []resource.Kind { return []resource.Kind{bundles(), requests()} }

func retired[V, T any](gv schema.GroupVersion, kind string) resource.Version {
	v := resource.SameShape[V, T](gv.WithKind(kind), certificatesv1.SchemeGroupVersion.WithKind(kind))
	v.Retired = true
	return v
}

func bundles() resource.Kind {
	return resource.Erase(&resource.Def[bundle]{
		Group: certificatesv1.GroupName, Version: "v1", Kind: "ClusterTrustBundle", Plural: "clustertrustbundles", ClusterScoped: true,
		Name:     func(string, bool) []string { return nil }, // depends on the signer: see validateBundle
		Validate: validateBundle,
		Columns: []resource.Column[bundle]{
			resource.NameColumn[bundle](),
			{Name: "SignerName", Description: resource.Doc(certificatesv1.ClusterTrustBundleSpec{}, "signerName"), Cell: func(b *bundle, _ time.Time) any {
				if b.Spec.SignerName == "" {
					return "<none>"
				}
				return b.Spec.SignerName
			}},
		},
		Selectable: map[string]func(*bundle) string{"spec.signerName": func(b *bundle) string { return b.Spec.SignerName }},
		Also: []resource.Version{
			retired[certificatesv1beta1.ClusterTrustBundle, bundle](certificatesv1beta1.SchemeGroupVersion, "ClusterTrustBundle"),
			retired[certificatesv1alpha1.ClusterTrustBundle, bundle](certificatesv1alpha1.SchemeGroupVersion, "ClusterTrustBundle"),
		},
	})
}

func requests() resource.Kind {
	doc := func(field string) string { return resource.Doc(certificatesv1.PodCertificateRequestSpec{}, field) }
	return resource.Erase(&resource.Def[request]{
		Group: certificatesv1.GroupName, Version: "v1", Kind: "PodCertificateRequest", Plural: "podcertificaterequests",
		Default: func(r *request) {
			if r.Spec.MaxExpirationSeconds == nil {
				day := int32(24 * 60 * 60)
				r.Spec.MaxExpirationSeconds = &day
			}
		},
		Prepare: func(_ *resource.Request, next, prev *request) {
			next.Status = certificatesv1.PodCertificateRequestStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Validate: validateRequest,
		Subs: []resource.Sub[request]{resource.StatusSub(func(next, prev *request) { next.Spec = *prev.Spec.DeepCopy() },
			validateStatus, "metadata", "spec")},
		Columns: []resource.Column[request]{
			resource.NameColumn[request](),
			{Name: "PodName", Description: doc("podName"), Cell: func(r *request, _ time.Time) any { return r.Spec.PodName }},
			{Name: "ServiceAccountName", Description: doc("serviceAccountName"), Cell: func(r *request, _ time.Time) any { return r.Spec.ServiceAccountName }},
			{Name: "NodeName", Description: doc("nodeName"), Cell: func(r *request, _ time.Time) any { return string(r.Spec.NodeName) }},
			{Name: "SignerName", Description: doc("signerName"), Cell: func(r *request, _ time.Time) any { return r.Spec.SignerName }},
			{Name: "State", Description: "Is the request Pending, Issued, Denied, or Failed?", Cell: func(r *request, _ time.Time) any {
				if s := outcome(r); s != "" {
					return s
				}
				return "Pending"
			}},
			{Name: "UnverifiedUserAnnotations", Wide: true, Description: doc("unverifiedUserAnnotations"), Cell: func(r *request, _ time.Time) any { return resource.LabelsCell(r.Spec.UnverifiedUserAnnotations) }},
		},
		Selectable: map[string]func(*request) string{
			"spec.signerName": func(r *request) string { return r.Spec.SignerName },
			"spec.podName":    func(r *request) string { return r.Spec.PodName },
			"spec.nodeName":   func(r *request) string { return string(r.Spec.NodeName) },
		},
		Indexes: []string{"spec.nodeName"}, ResetFields: []string{"status"},
	})
}

// outcome is the condition that ended a request, "" while it is open.
func outcome(r *request) string {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			return c.Type
		}
	}
	return ""
}

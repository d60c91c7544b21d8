package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/pki"
)

// defaultStorageClass gives claims without a class the default one.
type defaultStorageClass struct{ back request.Backend }

func (*defaultStorageClass) Name() string { return "DefaultStorageClass" }

func (*defaultStorageClass) Handles(op request.Operation) bool { return op == request.Create }

func storageClasses() schema.GroupResource {
	return schema.GroupResource{Group: storagev1.GroupName, Resource: "storageclasses"}
}

func (p *defaultStorageClass) Mutate(ctx context.Context, a *request.Attributes) error {
	claim, ok := of[*corev1.PersistentVolumeClaim](a)
	if !ok || claim.Spec.StorageClassName != nil || claim.Annotations[corev1.BetaStorageClassAnnotation] != "" {
		return nil
	}
	list, err := p.back.List(ctx, storageClasses(), "")
	if err != nil {
		return nil //nolint:nilerr // a server without storage classes has no default
	}
	var best *storagev1.StorageClass
	for _, obj := range list {
		c, ok := obj.(*storagev1.StorageClass)
		if !ok || c.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" && c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] != "true" {
			continue
		}
		// Of several defaults the newest counts, then the first by name.
		if best == nil || c.CreationTimestamp.After(best.CreationTimestamp.Time) || c.CreationTimestamp.Equal(&best.CreationTimestamp) && c.Name < best.Name {
			best = c
		}
	}
	if best != nil {
		name := best.Name
		claim.Spec.StorageClassName = &name
	}
	return nil
}

// inUseProtection keeps volumes and claims while something uses them.
type inUseProtection struct{ onCreate }

func (inUseProtection) Name() string { return "StorageObjectInUseProtection" }

func (inUseProtection) Mutate(_ context.Context, a *request.Attributes) error {
	add := func(list []string, f string) []string {
		if slices.Contains(list, f) {
			return list
		}
		return append(list, f)
	}
	if o, ok := of[*corev1.PersistentVolume](a); ok {
		o.Finalizers = add(o.Finalizers, "kubernetes.io/pv-protection")
	}
	if o, ok := of[*corev1.PersistentVolumeClaim](a); ok {
		o.Finalizers = add(o.Finalizers, "kubernetes.io/pvc-protection")
	}
	return nil
}

// claimResize lets claims grow only when their class says so.
type claimResize struct{ back request.Backend }

func (*claimResize) Name() string { return "PersistentVolumeClaimResize" }

func (*claimResize) Handles(op request.Operation) bool { return op == request.Update }

func (p *claimResize) Validate(ctx context.Context, a *request.Attributes) error {
	claim, ok := of[*corev1.PersistentVolumeClaim](a)
	was, had := old[*corev1.PersistentVolumeClaim](a)
	if !ok || !had {
		return nil
	}
	before, after := was.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if after.Cmp(before) <= 0 {
		return nil
	}
	if was.Status.Phase != corev1.ClaimBound {
		return forbid(a, errors.New("only bound persistent volume claims can be expanded"))
	}
	name := was.Annotations[corev1.BetaStorageClassAnnotation]
	if was.Spec.StorageClassName != nil && name == "" {
		name = *was.Spec.StorageClassName
	}
	if name != "" {
		obj, err := p.back.Get(ctx, storageClasses(), "", name)
		if c, is := obj.(*storagev1.StorageClass); err == nil && is && c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion {
			return nil
		}
	}
	return forbid(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
}

// defaultIngressClass gives ingresses without a class the default one.
type defaultIngressClass struct{ back request.Backend }

func (*defaultIngressClass) Name() string { return "DefaultIngressClass" }

func (*defaultIngressClass) Handles(op request.Operation) bool { return op == request.Create }

func (p *defaultIngressClass) Mutate(ctx context.Context, a *request.Attributes) error {
	ing, ok := of[*networkingv1.Ingress](a)
	if !ok || ing.Spec.IngressClassName != nil {
		return nil
	}
	if _, has := ing.Annotations["kubernetes.io/ingress.class"]; has {
		return nil
	}
	list, err := p.back.List(ctx, schema.GroupResource{Group: networkingv1.GroupName, Resource: "ingressclasses"}, "")
	if err != nil {
		return nil //nolint:nilerr // a server without ingress classes has no default
	}
	var best *networkingv1.IngressClass
	for _, obj := range list {
		c, ok := obj.(*networkingv1.IngressClass)
		if !ok || c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true" {
			continue
		}
		if best == nil || c.CreationTimestamp.After(best.CreationTimestamp.Time) || c.CreationTimestamp.Equal(&best.CreationTimestamp) && c.Name < best.Name {
			best = c
		}
	}
	if best != nil {
		name := best.Name
		ing.Spec.IngressClassName = &name
	}
	return nil
}

// denyExternalIPs refuses new external addresses on services.
type denyExternalIPs struct{ onCreateUpdate }

func (denyExternalIPs) Name() string { return "DenyServiceExternalIPs" }

func (denyExternalIPs) Validate(_ context.Context, a *request.Attributes) error {
	svc, ok := of[*corev1.Service](a)
	if !ok {
		return nil
	}
	var had []string
	if was, ok := old[*corev1.Service](a); ok {
		had = was.Spec.ExternalIPs
	}
	for _, ip := range svc.Spec.ExternalIPs {
		if !slices.Contains(had, ip) {
			return forbid(a, errors.New("Use of external IPs is denied by admission control")) //nolint:staticcheck // upstream's words
		}
	}
	return nil
}

// signerMay says whether the user may verb certificates of a signer.
func signerMay(ctx context.Context, z request.Authorizer, u *request.User, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		d, _, _ := z.Authorize(ctx, u, &request.Info{
			IsResource: true, Verb: verb, Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Name: name,
		})
		if d == request.Allow {
			return true
		}
	}
	return false
}

// certApproval asks whether a user may approve requests for the signer.
type certApproval struct{ authz request.Authorizer }

func (*certApproval) Name() string { return "CertificateApproval" }

func (*certApproval) Handles(op request.Operation) bool { return op == request.Update }

func (p *certApproval) Validate(ctx context.Context, a *request.Attributes) error {
	was, ok := old[*certificatesv1.CertificateSigningRequest](a)
	if !ok || a.Subresource != "approval" || signerMay(ctx, p.authz, a.User, "approve", was.Spec.SignerName) {
		return nil
	}
	return forbidf(a, "user not permitted to approve requests with signerName %q", was.Spec.SignerName)
}

// certSigning asks whether a user may sign for the signer.
type certSigning struct{ authz request.Authorizer }

func (*certSigning) Name() string { return "CertificateSigning" }

func (*certSigning) Handles(op request.Operation) bool { return op == request.Update }

func (p *certSigning) Validate(ctx context.Context, a *request.Attributes) error {
	was, ok := old[*certificatesv1.CertificateSigningRequest](a)
	now, is := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || !is || a.Subresource != "status" {
		return nil
	}
	if slices.Equal(was.Status.Certificate, now.Status.Certificate) && equality.Semantic.DeepEqual(was.Status.Conditions, now.Status.Conditions) {
		return nil
	}
	if signerMay(ctx, p.authz, a.User, "sign", was.Spec.SignerName) {
		return nil
	}
	return forbidf(a, "user not permitted to sign requests with signerName %q", was.Spec.SignerName)
}

// certSubject keeps system:masters out of certificates made through the API.
type certSubject struct{ onCreate }

func (certSubject) Name() string { return "CertificateSubjectRestriction" }

func (certSubject) Validate(_ context.Context, a *request.Attributes) error {
	csr, ok := of[*certificatesv1.CertificateSigningRequest](a)
	if !ok || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	parsed, err := pki.DecodeRequest(csr.Spec.Request)
	if err != nil {
		return forbid(a, fmt.Errorf("failed to parse CSR: %w", err))
	}
	if slices.Contains(parsed.Subject.Organization, request.Masters) {
		return forbidf(a, "use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, request.Masters)
	}
	return nil
}

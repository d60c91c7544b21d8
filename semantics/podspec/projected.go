package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// projected judges the sources that share one volume, and so its paths.
func (j *judge) projected(p *corev1.ProjectedVolumeSource, at *field.Path) {
	paths := sets.New[string]()
	take := func(file string, culprit string) {
		if file == "" {
			return
		}
		if paths.Has(file) {
			j.add(field.Invalid(at, culprit, "conflicting duplicate paths"))
		}
		paths.Insert(file)
	}
	items := func(name string, list []corev1.KeyToPath, at *field.Path) {
		if name == "" {
			j.required(at.Child("name"))
		}
		for i := range list {
			j.keyToPath(&list[i], at.Child("items").Index(i))
			take(list[i].Path, name)
		}
	}
	for i := range p.Sources {
		s, source, count := &p.Sources[i], at.Child("sources").Index(i), 0
		if s.Secret != nil {
			count++
			items(s.Secret.Name, s.Secret.Items, source.Child("secret"))
		}
		if s.ConfigMap != nil {
			count++
			items(s.ConfigMap.Name, s.ConfigMap.Items, source.Child("configMap"))
		}
		if s.DownwardAPI != nil {
			count++
			for k := range s.DownwardAPI.Items {
				j.downwardFile(&s.DownwardAPI.Items[k], source.Child("downwardAPI"))
				take(s.DownwardAPI.Items[k].Path, s.DownwardAPI.Items[k].Path)
			}
		}
		if s.ServiceAccountToken != nil {
			count++
			j.token(s.ServiceAccountToken, at, source.Child("serviceAccountToken"))
		}
		if s.ClusterTrustBundle != nil {
			count++
			j.trustBundle(s.ClusterTrustBundle, source.Child("clusterTrustBundle"))
			take(s.ClusterTrustBundle.Path, s.ClusterTrustBundle.Path)
		}
		if s.PodCertificate != nil {
			count++
			j.podCertificate(s.PodCertificate, source.Child("podCertificate"))
			take(s.PodCertificate.CredentialBundlePath, s.PodCertificate.CredentialBundlePath)
			take(s.PodCertificate.KeyPath, s.PodCertificate.KeyPath)
			take(s.PodCertificate.CertificateChainPath, s.PodCertificate.CertificateChainPath)
		}
		if count > 1 {
			j.add(field.Forbidden(source, "may not specify more than 1 volume type per source"))
		}
	}
}

func (j *judge) token(t *corev1.ServiceAccountTokenProjection, volume, at *field.Path) {
	if e := t.ExpirationSeconds; e != nil {
		if *e < 10*60 {
			j.add(field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
		}
		if *e > 1<<32 {
			j.add(field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	if t.Path == "" {
		j.required(volume.Child("path"))
		return
	}
	j.localPath(t.Path, volume.Child("path"))
}

func (j *judge) trustBundle(b *corev1.ClusterTrustBundleProjection, at *field.Path) {
	switch {
	case b.Name != nil && b.SignerName != nil:
		j.add(field.Invalid(at, b, "only one of name and signerName may be used"))
	case b.Name != nil:
		if *b.Name == "" {
			j.add(field.Required(at.Child("name"), "must be a valid object name"))
		}
		if b.LabelSelector != nil {
			j.add(field.Invalid(at.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified"))
		}
	case b.SignerName != nil:
		if *b.SignerName == "" {
			j.add(field.Required(at.Child("signerName"), "must be a valid signer name"))
		}
		j.selector(b.LabelSelector, at.Child("labelSelector"))
	default:
		j.add(field.Required(at, "either name or signerName must be specified"))
	}
	j.filled(b, at, "Path")
	j.localPath(b.Path, at.Child("path"))
}

func (j *judge) podCertificate(c *corev1.PodCertificateProjection, at *field.Path) {
	if c.SignerName == "" {
		j.add(field.Required(at.Child("signerName"), ""))
	}
	mustBeOneOf(j, at.Child("keyType"), c.KeyType, "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096")
	if m := c.MaxExpirationSeconds; m != nil && (*m < 3600 || *m > 91*24*3600) {
		j.add(field.Invalid(at.Child("maxExpirationSeconds"), *m, "must be between 3600 and 7862400"))
	}
	if c.CredentialBundlePath == "" && c.KeyPath == "" && c.CertificateChainPath == "" {
		j.add(field.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	for name, p := range map[string]string{"credentialBundlePath": c.CredentialBundlePath, "keyPath": c.KeyPath, "certificateChainPath": c.CertificateChainPath} {
		if p != "" {
			j.localPath(p, at.Child(name))
		}
	}
}

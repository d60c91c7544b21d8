package podspec

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Claim judges what a claim asks of a volume.
func Claim(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	j := &judge{}
	if len(spec.AccessModes) == 0 {
		j.add(field.Required(path.Child("accessModes"), "at least 1 access mode is required"))
	}
	if spec.Selector != nil {
		j.selector(spec.Selector, path.Child("selector"))
	}
	modes := sets.New(spec.AccessModes...)
	for _, m := range spec.AccessModes {
		oneOf(j, path.Child("accessModes"), m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
	}
	if modes.Has(corev1.ReadWriteOncePod) && modes.Len() > 1 {
		j.add(field.Forbidden(path.Child("accessModes"), "may not use ReadWriteOncePod with other access modes"))
	}
	requests := path.Child("resources")
	if size, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		j.required(requests.Key(string(corev1.ResourceStorage)))
	} else {
		j.add(Quantity(corev1.ResourceStorage, size, requests.Key(string(corev1.ResourceStorage)))...)
		if size.Sign() == 0 {
			j.add(field.Invalid(requests.Key(string(corev1.ResourceStorage)), size.String(), "must be greater than zero"))
		}
	}
	if n := spec.StorageClassName; n != nil && *n != "" {
		j.say(path.Child("storageClassName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
	}
	if m := spec.VolumeMode; m != nil {
		oneOf(j, path.Child("volumeMode"), *m, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	return j.errs
}

package persistentvolumeclaim

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/podspec"
)

func validate(next, prev *claim) field.ErrorList {
	spec := field.NewPath("spec")
	errs := podspec.Claim(&next.Spec, spec)
	errs = append(errs, validateSources(&next.Spec, spec)...)
	if prev == nil {
		return errs
	}
	return append(errs, validateUpdate(next, prev, spec)...)
}

func validateSources(s *corev1.PersistentVolumeClaimSpec, spec *field.Path) (errs field.ErrorList) {
	need := func(at *field.Path, kind, name string, group *string) {
		if name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if kind == "" {
			errs = append(errs, field.Required(at.Child("kind"), ""))
		}
		if (group == nil || *group == "") && kind != "PersistentVolumeClaim" {
			errs = append(errs, field.Invalid(at, kind, ""))
		}
	}
	if d := s.DataSource; d != nil {
		need(spec.Child("dataSource"), d.Kind, d.Name, d.APIGroup)
	}
	r := s.DataSourceRef
	if r == nil {
		return errs
	}
	need(spec.Child("dataSourceRef"), r.Kind, r.Name, r.APIGroup)
	if r.Namespace != nil && *r.Namespace != "" {
		if s.DataSource != nil {
			errs = append(errs, field.Invalid(spec, s.DataSource, "may not be specified when dataSourceRef.namespace is specified"))
		}
		for _, msg := range apivalidation.ValidateNamespaceName(*r.Namespace, false) {
			errs = append(errs, field.Invalid(spec.Child("dataSourceRef", "namespace"), *r.Namespace, msg))
		}
	} else if d := s.DataSource; d != nil && (d.Kind != r.Kind || d.Name != r.Name || !equality.Semantic.DeepEqual(d.APIGroup, r.APIGroup)) {
		errs = append(errs, field.Invalid(spec, fmt.Sprintf("%s/%s", d.Kind, d.Name), "must match dataSourceRef"))
	}
	return errs
}

// validateUpdate takes out of the old spec what may change, and compares.
func validateUpdate(next, prev *claim, spec *field.Path) (errs field.ErrorList) {
	now, before := next.Spec.DeepCopy(), prev.Spec.DeepCopy()
	if before.VolumeName == "" {
		before.VolumeName = now.VolumeName
	}
	if classMoved(next, prev) || before.StorageClassName == nil && prev.Spec.VolumeName == "" {
		before.StorageClassName = now.StorageClassName
	}
	bound := prev.Status.Phase == corev1.ClaimBound
	if bound {
		size, ok := now.Resources.Requests[corev1.ResourceStorage]
		if ok && before.Resources.Requests != nil {
			before.Resources.Requests[corev1.ResourceStorage] = size
		}
		before.VolumeAttributesClassName = now.VolumeAttributesClassName
	} else if before.VolumeAttributesClassName == nil {
		before.VolumeAttributesClassName = now.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(now, before) {
		errs = append(errs, field.Forbidden(spec,
			fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", diff.Diff(before, now))))
	}
	old, size := prev.Spec.Resources.Requests[corev1.ResourceStorage], next.Spec.Resources.Requests[corev1.ResourceStorage]
	capacity, known := prev.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(old) < 0 && (!known || size.Cmp(capacity) <= 0) {
		errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(next.Spec.VolumeMode, prev.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if was, is := prev.Spec.VolumeAttributesClassName, next.Spec.VolumeAttributesClassName; was != nil && *was != "" && (is == nil || *is == "") && bound {
		errs = append(errs, field.Forbidden(spec.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// classMoved: the class went from the old annotation to its field.
func classMoved(next, prev *claim) bool {
	class, ok := prev.Annotations[corev1.BetaStorageClassAnnotation]
	return ok && prev.Spec.StorageClassName == nil && next.Spec.StorageClassName != nil && *next.Spec.StorageClassName == class
}

func validateStatus(next, _ *claim) (errs field.ErrorList) {
	status := field.NewPath("status")
	if len(next.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	judge := func(name string, list corev1.ResourceList) {
		for r, q := range list {
			errs = append(errs, podspec.Quantity(r, q, status.Child(name).Key(string(r)))...)
		}
	}
	judge("capacity", next.Status.Capacity)
	judge("allocatedResources", next.Status.AllocatedResources)
	return errs
}

// warnings speak of the retired annotation and of sizes that are no whole bytes.
func warnings(next, _ *claim) (out []string) {
	if _, ok := next.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		out = append(out, "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead")
	}
	if size, ok := next.Spec.Resources.Requests[corev1.ResourceStorage]; ok && size.MilliValue()%1000 != 0 {
		out = append(out, fmt.Sprintf("spec.resources.requests[storage]: fractional byte value %q is invalid, must be an integer", size.String()))
	}
	return out
}

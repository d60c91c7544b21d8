package persistentvolume

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/podspec"
)

func validate(next, prev *volume) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	errs = validateSpec(&next.Spec, spec)
	if prev == nil {
		return errs
	}
	if now, before := next.Spec.PersistentVolumeSource, prev.Spec.PersistentVolumeSource; !equality.Semantic.DeepEqual(now, before) {
		errs = append(errs, field.Forbidden(spec.Child("persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", diff.Diff(before, now))))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(next.Spec.VolumeMode, prev.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if prev.Spec.NodeAffinity != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.Spec.NodeAffinity, prev.Spec.NodeAffinity, field.NewPath("nodeAffinity"))...)
	}
	return errs
}

func validateSpec(s *corev1.PersistentVolumeSpec, spec *field.Path) (errs field.ErrorList) {
	errs = append(errs, validateModes(s.AccessModes, spec.Child("accessModes"))...)
	errs = append(errs, validateCapacity(s.Capacity, spec.Child("capacity"))...)
	policies := []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain}
	if p := s.PersistentVolumeReclaimPolicy; p != "" && !slices.Contains(policies, p) {
		errs = append(errs, field.NotSupported(spec.Child("persistentVolumeReclaimPolicy"), p, policies))
	}
	if a := s.NodeAffinity; a != nil {
		required := spec.Child("nodeAffinity", "required")
		if a.Required == nil {
			errs = append(errs, field.Required(required, "must specify required node constraints"))
		} else {
			errs = append(errs, podspec.NodeSelector(a.Required, required)...)
		}
	}
	errs = append(errs, validateSource(s, spec)...)
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(spec.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	names := map[string]string{"storageClassName": s.StorageClassName}
	if s.VolumeAttributesClassName != nil {
		names["volumeAttributesClassName"] = *s.VolumeAttributesClassName
	}
	for _, at := range []string{"storageClassName", "volumeAttributesClassName"} {
		if name := names[at]; name != "" {
			for _, msg := range apivalidation.NameIsDNSSubdomain(name, false) {
				errs = append(errs, field.Invalid(spec.Child(at), name, msg))
			}
		}
	}
	volumeModes := []corev1.PersistentVolumeMode{corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem}
	if m := s.VolumeMode; m != nil && !slices.Contains(volumeModes, *m) {
		errs = append(errs, field.NotSupported(spec.Child("volumeMode"), *m, volumeModes))
	}
	return errs
}

func validateModes(list []corev1.PersistentVolumeAccessMode, at *field.Path) (errs field.ErrorList) {
	known := []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}
	if len(list) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	for _, m := range list {
		if !slices.Contains(known, m) {
			errs = append(errs, field.NotSupported(at, m, known))
		}
	}
	other := func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadWriteOncePod }
	if slices.Contains(list, corev1.ReadWriteOncePod) && slices.ContainsFunc(list, other) {
		errs = append(errs, field.Forbidden(at, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func validateCapacity(c corev1.ResourceList, at *field.Path) (errs field.ErrorList) {
	if len(c) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if _, ok := c[corev1.ResourceStorage]; !ok || len(c) > 1 {
		errs = append(errs, field.NotSupported(at, c, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for name, size := range c {
		key := at.Key(string(name))
		if size.Sign() < 0 {
			errs = append(errs, field.Invalid(key, size.Value(), "must be a valid resource quantity"))
		}
		if size.Sign() <= 0 {
			errs = append(errs, field.Invalid(key, size.String(), "must be greater than zero"))
		}
	}
	return errs
}

// validateSource wants one source, and of the sources that still work that
// they are whole.
func validateSource(s *corev1.PersistentVolumeSpec, spec *field.Path) (errs field.ErrorList) {
	sources, count := reflect.ValueOf(s.PersistentVolumeSource), 0
	for i := range sources.NumField() {
		if sources.Field(i).IsNil() {
			continue
		}
		if count++; count > 1 {
			name, _, _ := strings.Cut(sources.Type().Field(i).Tag.Get("json"), ",")
			errs = append(errs, field.Forbidden(spec.Child(name), "may not specify more than 1 volume type"))
		}
	}
	if count == 0 {
		errs = append(errs, field.Required(spec, "must specify a volume type"))
	}
	if h := s.HostPath; h != nil {
		errs = append(errs, validatePath(h.Path, spec.Child("hostPath", "path"))...)
	}
	if l := s.Local; l != nil {
		errs = append(errs, validatePath(l.Path, spec.Child("local", "path"))...)
		if s.NodeAffinity == nil {
			errs = append(errs, field.Required(spec.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
	}
	if n := s.NFS; n != nil {
		if n.Server == "" {
			errs = append(errs, field.Required(spec.Child("nfs", "server"), ""))
		}
		if n.Path == "" {
			errs = append(errs, field.Required(spec.Child("nfs", "path"), ""))
		} else if !path.IsAbs(n.Path) {
			errs = append(errs, field.Invalid(spec.Child("nfs", "path"), n.Path, "must be an absolute path"))
		}
	}
	if c := s.CSI; c != nil {
		errs = append(errs, validateCSI(c, spec.Child("csi"))...)
	}
	return errs
}

func validatePath(p string, at *field.Path) (errs field.ErrorList) {
	if p == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	if slices.Contains(strings.Split(p, "/"), "..") {
		errs = append(errs, field.Invalid(at, p, "must not contain '..'"))
	}
	return errs
}

func validateCSI(c *corev1.CSIPersistentVolumeSource, at *field.Path) (errs field.ErrorList) {
	if c.Driver == "" {
		errs = append(errs, field.Required(at.Child("driver"), ""))
	} else {
		if len(c.Driver) > 63 {
			errs = append(errs, field.TooLong(at.Child("driver"), "", 63))
		}
		for _, msg := range validation.IsDNS1123Subdomain(strings.ToLower(c.Driver)) {
			errs = append(errs, field.Invalid(at.Child("driver"), c.Driver, msg))
		}
	}
	if c.VolumeHandle == "" {
		errs = append(errs, field.Required(at.Child("volumeHandle"), ""))
	}
	for name, ref := range map[string]*corev1.SecretReference{
		"controllerPublishSecretRef": c.ControllerPublishSecretRef, "controllerExpandSecretRef": c.ControllerExpandSecretRef,
		"nodePublishSecretRef": c.NodePublishSecretRef, "nodeExpandSecretRef": c.NodeExpandSecretRef,
	} {
		if ref == nil {
			continue
		}
		if ref.Name == "" {
			errs = append(errs, field.Required(at.Child(name, "name"), ""))
		}
		if ref.Namespace == "" {
			errs = append(errs, field.Required(at.Child(name, "namespace"), ""))
		}
	}
	return errs
}

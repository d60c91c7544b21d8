// Package volumeattachment defines the VolumeAttachment kind.
//
// Job: rules and columns of storage.k8s.io/v1 VolumeAttachment and its retired
// versions.
//
// Not its job: attaching.
//
// Invariants: spec never changes; only the status subresource writes status.
package volumeattachment

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagev1alpha1 "k8s.io/api/storage/v1alpha1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

const (
	maxMetadata = 256 << 10
	maxMessage  = 1 << 10
	maxDriver   = 63
)

type attachment = storagev1.VolumeAttachment

// Kind returns the definition.
func Kind() resource.Kind {
	stored := storagev1.SchemeGroupVersion.WithKind("VolumeAttachment")
	return resource.Erase(&resource.Def[attachment]{
		Group: storagev1.GroupName, Version: "v1", Kind: "VolumeAttachment", Plural: "volumeattachments", ClusterScoped: true,
		Prepare: func(_ *resource.Request, next, prev *attachment) {
			next.Status = storagev1.VolumeAttachmentStatus{}
			if prev != nil {
				next.Status = prev.Status
			}
		},
		Validate: validate,
		Subs: []resource.Sub[attachment]{resource.StatusSub(
			func(next, prev *attachment) { next.Spec = prev.Spec },
			func(next, prev *attachment) field.ErrorList {
				return append(validate(next, prev), validateStatus(&next.Status)...)
			},
			"metadata")},
		Columns: []resource.Column[attachment]{
			resource.NameColumn[attachment](),
			{Name: "Attacher", Format: "name", Description: resource.Doc(storagev1.VolumeAttachmentSpec{}, "attacher"), Cell: func(a *attachment, _ time.Time) any { return a.Spec.Attacher }},
			{Name: "PV", Description: resource.Doc(storagev1.VolumeAttachmentSource{}, "persistentVolumeName"), Cell: func(a *attachment, _ time.Time) any {
				if a.Spec.Source.PersistentVolumeName == nil {
					return ""
				}
				return *a.Spec.Source.PersistentVolumeName
			}},
			{Name: "Node", Description: resource.Doc(storagev1.VolumeAttachmentSpec{}, "nodeName"), Cell: func(a *attachment, _ time.Time) any { return a.Spec.NodeName }},
			{Name: "Attached", Type: "boolean", Description: resource.Doc(storagev1.VolumeAttachmentStatus{}, "attached"), Cell: func(a *attachment, _ time.Time) any { return a.Status.Attached }},
			resource.AgeColumn[attachment](),
		},
		ResetFields: []string{"status"},
		Also: []resource.Version{
			resource.SameShape[storagev1beta1.VolumeAttachment, attachment](storagev1beta1.SchemeGroupVersion.WithKind("VolumeAttachment"), stored),
			resource.SameShape[storagev1alpha1.VolumeAttachment, attachment](storagev1alpha1.SchemeGroupVersion.WithKind("VolumeAttachment"), stored),
		},
	})
}

func validate(next, prev *attachment) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	if prev != nil {
		return apivalidation.ValidateImmutableField(next.Spec, prev.Spec, spec)
	}
	errs = validateDriver(next.Spec.Attacher, spec.Child("attacher"))
	source, name, inline := spec.Child("source"), next.Spec.Source.PersistentVolumeName, next.Spec.Source.InlineVolumeSpec
	switch {
	case name == nil && inline == nil:
		errs = append(errs, field.Required(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil && inline != nil:
		errs = append(errs, field.Forbidden(source, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil:
		if *name == "" {
			errs = append(errs, field.Required(source.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
		} else {
			for _, msg := range validation.IsDNS1123Subdomain(*name) {
				errs = append(errs, field.Invalid(source.Child("persistentVolumeName"), *name, msg))
			}
		}
	default:
		errs = append(errs, validateInline(inline, source.Child("inlineVolumeSpec"))...)
	}
	for _, msg := range validation.IsDNS1123Subdomain(next.Spec.NodeName) {
		errs = append(errs, field.Invalid(spec.Child("nodeName"), next.Spec.NodeName, msg))
	}
	return append(errs, validateStatus(&next.Status)...)
}

func validateInline(s *corev1.PersistentVolumeSpec, path *field.Path) (errs field.ErrorList) {
	if s.CSI == nil {
		return field.ErrorList{field.Required(path.Child("csi"), "must specify csi")}
	}
	if s.StorageClassName != "" {
		errs = append(errs, field.Forbidden(path.Child("storageClassName"), "may not be specified in the context of inline volumes"))
	}
	return errs
}

func validateDriver(name string, path *field.Path) (errs field.ErrorList) {
	if name == "" {
		errs = append(errs, field.Required(path, ""))
	}
	if len(name) > maxDriver {
		errs = append(errs, field.TooLong(path, "", maxDriver))
	}
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	return errs
}

func validateStatus(s *storagev1.VolumeAttachmentStatus) (errs field.ErrorList) {
	status, size := field.NewPath("status"), 0
	for k, v := range s.AttachmentMetadata {
		size += len(k) + len(v)
	}
	if size > maxMetadata {
		errs = append(errs, field.TooLong(status.Child("attachmentMetadata"), "", maxMetadata))
	}
	for name, e := range map[string]*storagev1.VolumeError{"attachError": s.AttachError, "detachError": s.DetachError} {
		if e != nil && len(e.Message) > maxMessage {
			errs = append(errs, field.TooLong(status.Child(name, "message"), "", maxMessage))
		}
	}
	return errs
}

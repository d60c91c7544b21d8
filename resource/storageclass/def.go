// Package storageclass defines the StorageClass kind.
//
// Job: defaults, rules and columns of storage.k8s.io/v1 StorageClass and its
// retired v1beta1.
//
// Not its job: provisioning; choosing the default class.
//
// Invariants: all that a provisioner was told stays as it is.
package storageclass

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

const (
	maxParameters     = 512
	maxParametersSize = 256 << 10
	isDefault         = "storageclass.kubernetes.io/is-default-class"
	isDefaultBeta     = "storageclass.beta.kubernetes.io/is-default-class"
)

type class = storagev1.StorageClass

// Kind returns the definition.
func Kind() resource.Kind {
	name := resource.NameColumn[class]()
	name.Cell = func(c *class, _ time.Time) any {
		if c.Annotations[isDefault] == "true" || c.Annotations[isDefaultBeta] == "true" {
			return c.Name + " (default)"
		}
		return c.Name
	}
	return resource.Erase(&resource.Def[class]{
		Group: storagev1.GroupName, Version: "v1", Kind: "StorageClass", Plural: "storageclasses",
		Short: []string{"sc"}, ClusterScoped: true,
		Default: setDefaults, Validate: validate,
		Columns: []resource.Column[class]{
			name,
			{Name: "Provisioner", Description: resource.Doc(class{}, "provisioner"), Cell: func(c *class, _ time.Time) any { return c.Provisioner }},
			{Name: "ReclaimPolicy", Description: resource.Doc(class{}, "reclaimPolicy"), Cell: func(c *class, _ time.Time) any {
				if c.ReclaimPolicy == nil {
					return string(corev1.PersistentVolumeReclaimDelete)
				}
				return string(*c.ReclaimPolicy)
			}},
			{Name: "VolumeBindingMode", Description: resource.Doc(class{}, "volumeBindingMode"), Cell: func(c *class, _ time.Time) any {
				if c.VolumeBindingMode == nil {
					return string(storagev1.VolumeBindingImmediate)
				}
				return string(*c.VolumeBindingMode)
			}},
			{Name: "AllowVolumeExpansion", Description: resource.Doc(class{}, "allowVolumeExpansion"), Cell: func(c *class, _ time.Time) any {
				return c.AllowVolumeExpansion != nil && *c.AllowVolumeExpansion
			}},
			resource.AgeColumn[class](),
		},
		Unconditional: true,
		Also: []resource.Version{resource.SameShape[storagev1beta1.StorageClass, class](
			storagev1beta1.SchemeGroupVersion.WithKind("StorageClass"), storagev1.SchemeGroupVersion.WithKind("StorageClass"))},
	})
}

func setDefaults(c *class) {
	if c.ReclaimPolicy == nil {
		c.ReclaimPolicy = new(corev1.PersistentVolumeReclaimDelete)
	}
	if c.VolumeBindingMode == nil {
		c.VolumeBindingMode = new(storagev1.VolumeBindingImmediate)
	}
}

func validate(next, prev *class) (errs field.ErrorList) {
	if prev != nil {
		if !equality.Semantic.DeepEqual(next.Parameters, prev.Parameters) {
			errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
		}
		if next.Provisioner != prev.Provisioner {
			errs = append(errs, field.Forbidden(field.NewPath("provisioner"), "updates to provisioner are forbidden."))
		}
		errs = append(errs, apivalidation.ValidateImmutableField(next.ReclaimPolicy, prev.ReclaimPolicy, field.NewPath("reclaimPolicy"))...)
		errs = append(errs, apivalidation.ValidateImmutableField(next.VolumeBindingMode, prev.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
	}
	errs = append(errs, validateProvisioner(next.Provisioner)...)
	errs = append(errs, validateParameters(next.Parameters)...)
	policies := []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain}
	if p := next.ReclaimPolicy; p != nil && *p != "" && !slices.Contains(policies, *p) {
		errs = append(errs, field.NotSupported(field.NewPath("reclaimPolicy"), *p, policies))
	}
	modes := []storagev1.VolumeBindingMode{storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer}
	if m := next.VolumeBindingMode; m == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else if !slices.Contains(modes, *m) {
		errs = append(errs, field.NotSupported(field.NewPath("volumeBindingMode"), *m, modes))
	}
	return append(errs, validateTopologies(next.AllowedTopologies)...)
}

func validateProvisioner(name string) (errs field.ErrorList) {
	path := field.NewPath("provisioner")
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	for _, msg := range validation.IsQualifiedName(strings.ToLower(name)) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	return errs
}

func validateParameters(parameters map[string]string) (errs field.ErrorList) {
	path, size := field.NewPath("parameters"), 0
	if len(parameters) > maxParameters {
		return field.ErrorList{field.TooLong(path, "", maxParameters)}
	}
	for k, v := range parameters {
		if k == "" {
			errs = append(errs, field.Invalid(path, k, "field can not be empty."))
		}
		size += len(k) + len(v)
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(path, "", maxParametersSize))
	}
	return errs
}

func validateTopologies(terms []corev1.TopologySelectorTerm) (errs field.ErrorList) {
	path := field.NewPath("allowedTopologies")
	for i, term := range terms {
		keys := map[string]bool{}
		for j, e := range term.MatchLabelExpressions {
			at := path.Index(i).Child("matchLabelExpressions").Index(j)
			errs = append(errs, metavalidation.ValidateLabelName(e.Key, at.Child("key"))...)
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), ""))
			}
			for k, v := range e.Values {
				if slices.Contains(e.Values[:k], v) {
					errs = append(errs, field.Duplicate(at.Child("values").Index(k), v))
				}
			}
			if keys[e.Key] {
				errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
			}
			keys[e.Key] = true
		}
		for j := range i {
			if equality.Semantic.DeepEqual(terms[j], term) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("matchLabelExpressions"), ""))
			}
		}
	}
	return errs
}

// Package volumeattributesclass defines the VolumeAttributesClass kind.
//
// Job: rules and columns of storage.k8s.io/v1 VolumeAttributesClass and its
// earlier versions.
//
// Not its job: changing volumes.
//
// Invariants: what a driver was told stays as it is.
package volumeattributesclass

import (
	"maps"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	storagev1alpha1 "k8s.io/api/storage/v1alpha1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

const (
	maxParameters     = 512
	maxParametersSize = 256 << 10
)

type class = storagev1.VolumeAttributesClass

// Kind returns the definition.
func Kind() resource.Kind {
	stored := storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass")
	beta := resource.SameShape[storagev1beta1.VolumeAttributesClass, class](storagev1beta1.SchemeGroupVersion.WithKind("VolumeAttributesClass"), stored)
	alpha := resource.SameShape[storagev1alpha1.VolumeAttributesClass, class](storagev1alpha1.SchemeGroupVersion.WithKind("VolumeAttributesClass"), stored)
	beta.Retired, alpha.Retired = true, true
	return resource.Erase(&resource.Def[class]{
		Group: storagev1.GroupName, Version: "v1", Kind: "VolumeAttributesClass", Plural: "volumeattributesclasses",
		Short: []string{"vac"}, ClusterScoped: true,
		Validate: validate,
		Columns: []resource.Column[class]{
			resource.NameColumn[class](),
			{Name: "DriverName", Description: resource.Doc(class{}, "driverName"), Cell: func(c *class, _ time.Time) any { return c.DriverName }},
			resource.AgeColumn[class](),
		},
		Unconditional: true,
		Also:          []resource.Version{beta, alpha},
	})
}

func validate(next, prev *class) (errs field.ErrorList) {
	driver, path := field.NewPath("driverName"), field.NewPath("parameters")
	if prev != nil {
		if next.DriverName != prev.DriverName {
			errs = append(errs, field.Forbidden(driver, "updates to driverName are forbidden."))
		}
		if !maps.Equal(next.Parameters, prev.Parameters) {
			errs = append(errs, field.Forbidden(path, "updates to parameters are forbidden."))
		}
	}
	if next.DriverName == "" {
		errs = append(errs, field.Required(driver, ""))
	} else {
		for _, msg := range validation.IsQualifiedName(strings.ToLower(next.DriverName)) {
			errs = append(errs, field.Invalid(driver, next.DriverName, msg))
		}
	}
	switch {
	case len(next.Parameters) == 0:
		return append(errs, field.Required(path, "must contain at least one key/value pair"))
	case len(next.Parameters) > maxParameters:
		return append(errs, field.TooLong(path, "", maxParameters))
	}
	size := 0
	for k, v := range next.Parameters {
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

// Package csistoragecapacity defines the CSIStorageCapacity kind.
//
// Job: rules and columns of storage.k8s.io/v1 CSIStorageCapacity and its retired
// versions.
//
// Not its job: measuring capacity.
//
// Invariants: which class and which nodes a capacity is of never changes.
package csistoragecapacity

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	storagev1alpha1 "k8s.io/api/storage/v1alpha1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

type capacity = storagev1.CSIStorageCapacity

// Kind returns the definition.
func Kind() resource.Kind {
	stored := storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity")
	return resource.Erase(&resource.Def[capacity]{
		Group: storagev1.GroupName, Version: "v1", Kind: "CSIStorageCapacity", Plural: "csistoragecapacities",
		Validate: validate,
		Columns: []resource.Column[capacity]{
			resource.NameColumn[capacity](),
			{Name: "StorageClassName", Description: resource.Doc(capacity{}, "storageClassName"), Cell: func(c *capacity, _ time.Time) any { return c.StorageClassName }},
			{Name: "Capacity", Description: resource.Doc(capacity{}, "capacity"), Cell: func(c *capacity, _ time.Time) any {
				if c.Capacity == nil {
					return "<unset>"
				}
				return c.Capacity.String()
			}},
		},
		Unconditional: true,
		Also: []resource.Version{
			resource.SameShape[storagev1beta1.CSIStorageCapacity, capacity](storagev1beta1.SchemeGroupVersion.WithKind("CSIStorageCapacity"), stored),
			resource.SameShape[storagev1alpha1.CSIStorageCapacity, capacity](storagev1alpha1.SchemeGroupVersion.WithKind("CSIStorageCapacity"), stored),
		},
	})
}

func validate(next, prev *capacity) (errs field.ErrorList) {
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.NodeTopology, prev.NodeTopology, field.NewPath("nodeTopology"))...)
		return append(errs, apivalidation.ValidateImmutableField(next.StorageClassName, prev.StorageClassName, field.NewPath("storageClassName"))...)
	}
	if next.NodeTopology != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(next.NodeTopology, metavalidation.LabelSelectorValidationOptions{}, field.NewPath("nodeTopology"))...)
	}
	for _, msg := range apivalidation.NameIsDNSSubdomain(next.StorageClassName, false) {
		errs = append(errs, field.Invalid(field.NewPath("storageClassName"), next.StorageClassName, msg))
	}
	for name, q := range map[string]*quantity.Quantity{"capacity": next.Capacity, "maximumVolumeSize": next.MaximumVolumeSize} {
		if q != nil && q.Sign() < 0 {
			errs = append(errs, field.Invalid(field.NewPath(name), q.String(), "must be greater than or equal to 0"))
		}
	}
	return errs
}

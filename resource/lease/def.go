// Package lease defines the Lease kind.
//
// Job: rules and columns of coordination/v1 Lease and its retired v1beta1.
//
// Not its job: leader election.
//
// Invariants: the two versions have one shape.
package lease

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	stored := coordinationv1.SchemeGroupVersion.WithKind("Lease")
	return resource.Erase(&resource.Def[coordinationv1.Lease]{
		Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Plural: "leases",
		Validate: validate,
		Columns: []resource.Column[coordinationv1.Lease]{
			resource.NameColumn[coordinationv1.Lease](),
			{
				Name: "Holder", Description: resource.Doc(coordinationv1.LeaseSpec{}, "holderIdentity"),
				Cell: func(l *coordinationv1.Lease, _ time.Time) any {
					if l.Spec.HolderIdentity == nil {
						return ""
					}
					return *l.Spec.HolderIdentity
				},
			},
			resource.AgeColumn[coordinationv1.Lease](),
		},
		CreateOnUpdate: true,
		Also: []resource.Version{
			resource.SameShape[coordinationv1beta1.Lease, coordinationv1.Lease](
				coordinationv1beta1.SchemeGroupVersion.WithKind("Lease"), stored),
		},
	})
}

func validate(next, _ *coordinationv1.Lease) (errs field.ErrorList) {
	spec, path := &next.Spec, field.NewPath("spec")
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if spec.Strategy != nil {
		for _, msg := range validation.IsQualifiedName(string(*spec.Strategy)) {
			errs = append(errs, field.Invalid(path.Child("strategy"), *spec.Strategy, msg))
		}
	}
	if spec.PreferredHolder != nil && *spec.PreferredHolder != "" && (spec.Strategy == nil || *spec.Strategy == "") {
		errs = append(errs, field.Forbidden(path.Child("preferredHolder"), "may only be specified when `strategy` is defined"))
	}
	return errs
}

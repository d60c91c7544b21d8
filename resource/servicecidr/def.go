// Package servicecidr defines the ServiceCIDR kind.
//
// Job: rules and columns of networking.k8s.io/v1 ServiceCIDR and its v1beta1.
//
// Not its job: handing out addresses (the Ledger's).
//
// Invariants: ranges are one or two, of different families; those that are
// there never change, one of the other family may join.
package servicecidr

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/resource"
)

type cidr = networkingv1.ServiceCIDR

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[cidr]{
		Group: networkingv1.GroupName, Version: "v1", Kind: "ServiceCIDR", Plural: "servicecidrs", ClusterScoped: true,
		Generation: func(c *cidr) any { return &c.Spec },
		Prepare: func(_ *resource.Request, next, prev *cidr) {
			next.Status = networkingv1.ServiceCIDRStatus{}
			if prev != nil {
				next.Status = prev.Status
			}
		},
		Validate: validate,
		Subs: []resource.Sub[cidr]{resource.StatusSub(
			func(next, prev *cidr) { next.Spec = prev.Spec },
			func(_, _ *cidr) field.ErrorList { return nil })},
		Columns: []resource.Column[cidr]{
			resource.NameColumn[cidr](),
			{Name: "CIDRs", Description: resource.Doc(networkingv1.ServiceCIDRSpec{}, "cidrs"), Cell: func(c *cidr, _ time.Time) any { return strings.Join(c.Spec.CIDRs, ",") }},
			resource.AgeColumn[cidr](),
		},
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also: []resource.Version{resource.SameShape[networkingv1beta1.ServiceCIDR, cidr](
			networkingv1beta1.SchemeGroupVersion.WithKind("ServiceCIDR"), networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"))},
	})
}

func validate(next, prev *cidr) (errs field.ErrorList) {
	path, list := field.NewPath("spec", "cidrs"), next.Spec.CIDRs
	if prev != nil {
		return validateUpdate(next, prev, path)
	}
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "at least one CIDR required")}
	}
	if len(list) > 2 {
		return field.ErrorList{field.Invalid(path, next.Spec, "may only hold up to 2 values")}
	}
	for i, c := range list {
		errs = append(errs, validation.IsValidCIDR(path.Index(i), c)...)
	}
	if len(errs) == 0 && len(list) == 2 {
		if dual, err := netutils.IsDualStackCIDRStrings(list); err != nil {
			errs = append(errs, field.Invalid(path, next.Spec, err.Error()))
		} else if !dual {
			errs = append(errs, field.Invalid(path, next.Spec, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
		}
	}
	return errs
}

// validateUpdate lets a range of the other family join the first.
func validateUpdate(next, prev *cidr, path *field.Path) (errs field.ErrorList) {
	now, before := next.Spec.CIDRs, prev.Spec.CIDRs
	if len(before) == 1 && len(now) == 2 && now[0] == before[0] {
		return validate(next, nil)
	}
	return apivalidation.ValidateImmutableField(now, before, path)
}

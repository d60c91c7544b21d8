package service

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// validateIPs judges cluster addresses, families and policy together.
func validateIPs(s *corev1.Service) (errs field.ErrorList) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	spec := field.NewPath("spec")
	path := spec.Child("clusterIPs")
	switch {
	case s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) != 0:
		errs = append(errs, field.Invalid(path, s.Spec.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0:
		errs = append(errs, field.Required(path, ""))
	case s.Spec.ClusterIP != "" && s.Spec.ClusterIPs[0] != s.Spec.ClusterIP:
		errs = append(errs, field.Invalid(path, s.Spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	seen := map[corev1.IPFamily]bool{}
	for i, f := range s.Spec.IPFamilies {
		at := spec.Child("ipFamilies").Index(i)
		if f != corev1.IPv4Protocol && f != corev1.IPv6Protocol {
			errs = append(errs, field.NotSupported(at, f, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
		if seen[f] {
			errs = append(errs, field.Duplicate(at, f))
		}
		seen[f] = true
	}
	if s.Spec.IPFamilyPolicy != nil {
		errs = append(errs, validateSupported(*s.Spec.IPFamilyPolicy, spec.Child("ipFamilyPolicy"),
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	return append(errs, validateAddresses(s, path, len(errs) == 0)...)
}

// validateAddresses judges the list of addresses; matched says that families
// are good enough to compare with.
func validateAddresses(s *corev1.Service, path *field.Path, matched bool) (errs field.ErrorList) {
	ips, broken := s.Spec.ClusterIPs, false
	for i, ip := range ips {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(ips) > 1 {
				broken = true
				errs = append(errs, field.Invalid(path, ips, "'None' must be the first and only value"))
			}
			continue
		}
		if bad := validation.IsValidIPForLegacyField(path.Index(i), ip, false, nil); len(bad) > 0 {
			broken = true
			errs = append(errs, bad...)
		}
	}
	if len(ips) > 2 {
		errs = append(errs, field.Invalid(path, ips, "may only hold up to 2 values"))
	}
	// Of unreadable addresses nothing more can be said that helps.
	if broken {
		return errs
	}
	if len(ips) > 1 {
		dual, err := netutils.IsDualStackIPStrings(ips)
		if err != nil {
			errs = append(errs, field.InternalError(path, fmt.Errorf("failed to check for dual stack with error:%w", err)))
		}
		if !dual {
			errs = append(errs, field.Invalid(path, ips, "may specify no more than one IP for each IP family"))
		}
	}
	if headless(s) || !matched || len(errs) > 0 {
		return errs
	}
	for i := 0; i < min(len(ips), len(s.Spec.IPFamilies)); i++ {
		if want := s.Spec.IPFamilies[i]; familyOf(ips[i]) != want {
			errs = append(errs, field.Invalid(path.Index(i), ips[i], fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%v]`", want, i)))
		}
	}
	return errs
}

// validateIPChange lets the second address come and go, never the first change.
func validateIPChange(next, prev *corev1.Service) field.ErrorList {
	if next.Spec.Type == corev1.ServiceTypeExternalName || prev.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	return validateChange(next, change[string]{
		now: next.Spec.ClusterIPs, before: prev.Spec.ClusterIPs,
		path: field.NewPath("spec", "clusterIPs"), value: next.Spec.ClusterIPs, noun: "clusterIP",
	})
}

// validateFamilyChange is the same for families; headless services are free.
func validateFamilyChange(next, prev *corev1.Service) field.ErrorList {
	if next.Spec.Type == corev1.ServiceTypeExternalName || prev.Spec.Type == corev1.ServiceTypeExternalName ||
		headless(next) || headless(prev) {
		return nil
	}
	return validateChange(next, change[corev1.IPFamily]{
		now: next.Spec.IPFamilies, before: prev.Spec.IPFamilies,
		path: field.NewPath("spec", "ipFamilies"), value: next.Spec.IPFamilies, noun: "ipFamily",
	})
}

// change is what became of one of the parallel lists of addresses and families.
type change[T comparable] struct {
	now, before []T
	path        *field.Path
	value       any
	noun        string
}

func validateChange[T comparable](next *corev1.Service, c change[T]) (errs field.ErrorList) {
	policy := field.NewPath("spec", "ipFamilyPolicy")
	if len(c.now) == len(c.before) {
		for i := range c.now {
			if c.now[i] != c.before[i] {
				errs = append(errs, field.Invalid(c.path.Index(i), c.value, "may not change once set"))
			}
		}
		return errs
	}
	if len(c.now) == 0 {
		return append(errs, field.Invalid(c.path.Index(0), c.value, "primary "+c.noun+" can not be unset"))
	}
	if len(c.before) > 0 && c.now[0] != c.before[0] {
		errs = append(errs, field.Invalid(c.path.Index(0), c.value, "may not change once set"))
	}
	single := policyIs(next, corev1.IPFamilyPolicySingleStack)
	switch {
	case len(c.now) < len(c.before) && len(c.now) == 1 && !single:
		errs = append(errs, field.Invalid(policy, next.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary "+c.noun))
	case len(c.now) > len(c.before) && len(c.now) == 2 && (next.Spec.IPFamilyPolicy == nil || single):
		errs = append(errs, field.Invalid(policy, next.Spec.IPFamilyPolicy,
			"must be set to 'RequireDualStack' or 'PreferDualStack' when adding a secondary "+c.noun))
	}
	return errs
}

func validateClassChange(next, prev *corev1.Service) field.ErrorList {
	lb := corev1.ServiceTypeLoadBalancer
	if next.Spec.Type == lb && prev.Spec.Type == lb && !equalPtr(next.Spec.LoadBalancerClass, prev.Spec.LoadBalancerClass) {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "loadBalancerClass"), next.Spec.LoadBalancerClass, "may not change once set")}
	}
	return nil
}

// warnings speak of fields without effect and of odd spellings.
func warnings(next, _ *corev1.Service) (out []string) {
	s, spec := &next.Spec, field.NewPath("spec")
	if _, ok := next.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		out = append(out, fmt.Sprintf("annotation %s is deprecated, please use %s instead",
			corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	if headless(next) {
		if s.LoadBalancerIP != "" {
			out = append(out, `spec.loadBalancerIP is ignored when spec.clusterIP is "None"`)
		}
		if len(s.ExternalIPs) > 0 {
			out = append(out, `spec.externalIPs is ignored when spec.clusterIP is "None"`)
		}
		if s.SessionAffinity != corev1.ServiceAffinityNone {
			out = append(out, `spec.SessionAffinity is ignored when spec.clusterIP is "None"`)
		}
	} else {
		for i, ip := range s.ClusterIPs {
			out = append(out, validation.GetWarningsForIP(spec.Child("clusterIPs").Index(i), ip)...)
		}
	}
	for i, ip := range s.ExternalIPs {
		out = append(out, validation.GetWarningsForIP(spec.Child("externalIPs").Index(i), ip)...)
	}
	if s.LoadBalancerIP != "" {
		out = append(out, validation.GetWarningsForIP(spec.Child("loadBalancerIP"), s.LoadBalancerIP)...)
	}
	for i, cidr := range s.LoadBalancerSourceRanges {
		out = append(out, validation.GetWarningsForCIDR(spec.Child("loadBalancerSourceRanges").Index(i), cidr)...)
	}
	if s.Type == corev1.ServiceTypeExternalName && len(s.ExternalIPs) > 0 {
		out = append(out, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
	}
	if s.Type != corev1.ServiceTypeExternalName && s.ExternalName != "" {
		out = append(out, `spec.externalName is ignored when spec.type is not "ExternalName"`)
	}
	return out
}

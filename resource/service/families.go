package service

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// chooseFamilies completes ipFamilyPolicy and ipFamilies from what the user
// gave and what the cluster has, and refuses what the cluster cannot do.
func chooseFamilies(cluster []string, next, prev *corev1.Service) field.ErrorList {
	if next.Spec.Type == corev1.ServiceTypeExternalName || settledPreference(next, prev) {
		return nil
	}
	n := &next.Spec
	bare := n.ClusterIP == corev1.ClusterIPNone && len(n.Selector) == 0
	if n.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if prev != nil && prev.Spec.IPFamilyPolicy != nil {
			policy = *prev.Spec.IPFamilyPolicy
		} else if bare {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		n.IPFamilyPolicy = &policy
	}
	if errs := validateIPs(next); len(errs) > 0 {
		return errs
	}
	if errs := matchPolicy(cluster, next, prev); len(errs) > 0 {
		return errs
	}
	single := policyIs(next, corev1.IPFamilyPolicySingleStack)
	if bare {
		// Nothing is allocated, so any family will do.
		if len(n.IPFamilies) == 0 {
			n.IPFamilies = []corev1.IPFamily{corev1.IPFamily(cluster[0])}
		}
		if len(n.IPFamilies) < 2 && !single {
			n.IPFamilies = append(slices.Clone(n.IPFamilies), other(n.IPFamilies[0]))
		}
		return nil
	}
	var errs field.ErrorList
	if policyIs(next, corev1.IPFamilyPolicyRequireDualStack) && len(cluster) < 2 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), n.IPFamilyPolicy,
			"this cluster is not configured for dual-stack services"))
	}
	for i, f := range n.IPFamilies {
		if !slices.Contains(cluster, string(f)) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	if len(n.IPFamilies) == 0 {
		n.IPFamilies = []corev1.IPFamily{corev1.IPFamily(cluster[0])}
	}
	if !single && len(n.IPFamilies) == 1 && len(cluster) == 2 {
		n.IPFamilies = append(slices.Clone(n.IPFamilies), other(n.IPFamilies[0]))
	}
	return nil
}

// settledPreference: a service that prefers two families keeps what it got, even
// if the cluster has more or fewer families by now.
func settledPreference(next, prev *corev1.Service) bool {
	return prev != nil && next.Spec.Type == prev.Spec.Type && needsIP(next) &&
		policyIs(next, corev1.IPFamilyPolicyPreferDualStack) && policyIs(prev, corev1.IPFamilyPolicyPreferDualStack) &&
		sameIPs(next, prev) && sameFamilies(next, prev)
}

// matchPolicy makes policy, families and addresses agree.
func matchPolicy(cluster []string, next, prev *corev1.Service) (errs field.ErrorList) {
	n, policy := &next.Spec, field.NewPath("spec", "ipFamilyPolicy")
	single := policyIs(next, corev1.IPFamilyPolicySingleStack)
	if prev != nil && single {
		// Asking for one family is a clear wish to lose the second.
		if sameIPs(next, prev) && len(n.ClusterIPs) > 1 {
			n.ClusterIPs = n.ClusterIPs[:1:1]
		}
		if sameFamilies(next, prev) && len(n.IPFamilies) > 1 {
			n.IPFamilies = n.IPFamilies[:1:1]
		}
	}
	if prev != nil && !single {
		if len(n.ClusterIPs) > 0 && len(prev.Spec.ClusterIPs) == 2 && len(n.ClusterIPs) == 1 && n.ClusterIPs[0] == prev.Spec.ClusterIPs[0] {
			errs = append(errs, field.Invalid(policy, n.IPFamilyPolicy, "must be 'SingleStack' to release the secondary cluster IP"))
		}
		if len(n.IPFamilies) == 1 && len(prev.Spec.IPFamilies) == 2 && n.IPFamilies[0] == prev.Spec.IPFamilies[0] {
			errs = append(errs, field.Invalid(policy, n.IPFamilyPolicy, "must be 'SingleStack' to release the secondary IP family"))
		}
	}
	if single && len(n.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(policy, n.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
	}
	if single && len(n.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(policy, n.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
	}
	for i, ip := range n.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			break
		}
		if i < len(n.IPFamilies) {
			continue
		}
		f := familyOf(ip)
		if !slices.Contains(cluster, string(f)) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(i), n.ClusterIPs,
				fmt.Sprintf("%s is not configured on this cluster", f)))
			continue
		}
		n.IPFamilies = append(slices.Clone(n.IPFamilies), f)
	}
	return errs
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

func familyOf(ip string) corev1.IPFamily {
	if netutils.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

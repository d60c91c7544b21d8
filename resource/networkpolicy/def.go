// Package networkpolicy defines the NetworkPolicy kind.
//
// Job: defaults, rules and columns of networking.k8s.io/v1 NetworkPolicy and the
// retired one of extensions/v1beta1.
//
// Not its job: enforcing policies.
//
// Invariants: what a policy is about (ingress, egress) is always written down.
package networkpolicy

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/resource"
)

type policy = networkingv1.NetworkPolicy

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[policy]{
		Group: networkingv1.GroupName, Version: "v1", Kind: "NetworkPolicy", Plural: "networkpolicies",
		Short:      []string{"netpol"},
		Generation: func(p *policy) any { return &p.Spec },
		Default:    setDefaults, Validate: validate,
		Columns: []resource.Column[policy]{
			resource.NameColumn[policy](),
			{Name: "Pod-Selector", Description: resource.Doc(networkingv1.NetworkPolicySpec{}, "podSelector"), Cell: func(p *policy, _ time.Time) any {
				return resource.SelectorCell(&p.Spec.PodSelector)
			}},
			resource.AgeColumn[policy](),
		},
		Unconditional: true,
		Also: []resource.Version{resource.SameShape[extensionsv1beta1.NetworkPolicy, policy](
			extensionsv1beta1.SchemeGroupVersion.WithKind("NetworkPolicy"), networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"))},
	})
}

func setDefaults(p *policy) {
	ports := func(list []networkingv1.NetworkPolicyPort) {
		for i := range list {
			if list[i].Protocol == nil {
				list[i].Protocol = new(corev1.ProtocolTCP)
			}
		}
	}
	for i := range p.Spec.Ingress {
		ports(p.Spec.Ingress[i].Ports)
	}
	for i := range p.Spec.Egress {
		ports(p.Spec.Egress[i].Ports)
	}
	if len(p.Spec.PolicyTypes) == 0 {
		// Policies were about ingress before there was a choice.
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) != 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

func validate(next, prev *policy) (errs field.ErrorList) {
	spec, s := field.NewPath("spec"), &next.Spec
	old := cidrs(prev)
	errs = append(errs, metavalidation.ValidateLabelSelector(&s.PodSelector, metavalidation.LabelSelectorValidationOptions{}, spec.Child("podSelector"))...)
	for i, r := range s.Ingress {
		at := spec.Child("ingress").Index(i)
		errs = append(errs, validateRule(r.Ports, r.From, at.Child("ports"), at.Child("from"), old)...)
	}
	for i, r := range s.Egress {
		at := spec.Child("egress").Index(i)
		errs = append(errs, validateRule(r.Ports, r.To, at.Child("ports"), at.Child("to"), old)...)
	}
	types, known := spec.Child("policyTypes"), []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	if len(s.PolicyTypes) > len(known) {
		return append(errs, field.Invalid(types, &s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range s.PolicyTypes {
		if !slices.Contains(known, t) {
			errs = append(errs, field.NotSupported(types.Index(i), t, known))
		}
	}
	return errs
}

// cidrs are those a stored policy has, which may be spelled the old, lax way.
func cidrs(p *policy) (list []string) {
	if p == nil {
		return nil
	}
	note := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, peer := range peers {
			if b := peer.IPBlock; b != nil {
				list = append(append(list, b.CIDR), b.Except...)
			}
		}
	}
	for _, r := range p.Spec.Ingress {
		note(r.From)
	}
	for _, r := range p.Spec.Egress {
		note(r.To)
	}
	return list
}

func validateRule(ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, portsPath, peersPath *field.Path, old []string) (errs field.ErrorList) {
	for i := range ports {
		errs = append(errs, validatePort(&ports[i], portsPath.Index(i))...)
	}
	for i := range peers {
		errs = append(errs, validatePeer(&peers[i], peersPath.Index(i), old)...)
	}
	return errs
}

func validatePort(p *networkingv1.NetworkPolicyPort, path *field.Path) (errs field.ErrorList) {
	protocols := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	if p.Protocol != nil && !slices.Contains(protocols, *p.Protocol) {
		errs = append(errs, field.NotSupported(path.Child("protocol"), *p.Protocol, protocols))
	}
	port, end := path.Child("port"), path.Child("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
		}
	case p.Port.Type == intstr.String:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		for _, msg := range validation.IsValidPortName(p.Port.StrVal) {
			errs = append(errs, field.Invalid(port, p.Port.StrVal, msg))
		}
	default:
		for _, msg := range validation.IsValidPortNum(int(p.Port.IntVal)) {
			errs = append(errs, field.Invalid(port, p.Port.IntVal, msg))
		}
		if p.EndPort == nil {
			break
		}
		if *p.EndPort < p.Port.IntVal {
			errs = append(errs, field.Invalid(end, p.Port.IntVal, "must be greater than or equal to `port`"))
		}
		for _, msg := range validation.IsValidPortNum(int(*p.EndPort)) {
			errs = append(errs, field.Invalid(end, *p.EndPort, msg))
		}
	}
	return errs
}

func validatePeer(p *networkingv1.NetworkPolicyPeer, path *field.Path, old []string) (errs field.ErrorList) {
	selectors := metavalidation.LabelSelectorValidationOptions{}
	if p.PodSelector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(p.PodSelector, selectors, path.Child("podSelector"))...)
	}
	if p.NamespaceSelector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(p.NamespaceSelector, selectors, path.Child("namespaceSelector"))...)
	}
	if p.IPBlock != nil {
		errs = append(errs, validateBlock(p.IPBlock, path.Child("ipBlock"), old)...)
	}
	switch {
	case p.PodSelector == nil && p.NamespaceSelector == nil && p.IPBlock == nil:
		errs = append(errs, field.Required(path, "must specify a peer"))
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		errs = append(errs, field.Forbidden(path, "may not specify both ipBlock and another peer"))
	}
	return errs
}

func validateBlock(b *networkingv1.IPBlock, path *field.Path, old []string) (errs field.ErrorList) {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	if errs = validation.IsValidCIDRForLegacyField(path.Child("cidr"), b.CIDR, false, old); len(errs) > 0 {
		return errs
	}
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return field.ErrorList{field.InternalError(path.Child("cidr"), fmt.Errorf("parse cidr: %w", err))}
	}
	ones, _ := whole.Mask.Size()
	for i, text := range b.Except {
		at := path.Child("except").Index(i)
		if bad := validation.IsValidCIDRForLegacyField(at, text, false, old); len(bad) > 0 {
			return append(errs, bad...)
		}
		_, part, err := netutils.ParseCIDRSloppy(text)
		if err != nil {
			continue
		}
		if n, _ := part.Mask.Size(); !whole.Contains(part.IP) || ones >= n {
			errs = append(errs, field.Invalid(at, text, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

package service

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/semantics/address"
)

// validateExternalIPs refuses addresses that mean something to every node.
// Addresses that were stored before may be spelled the old, lax way.
func validateExternalIPs(next, prev *corev1.Service, path *field.Path) (errs field.ErrorList) {
	var old []string
	if prev != nil {
		old = prev.Spec.ExternalIPs
	}
	for i, ip := range next.Spec.ExternalIPs {
		if bad := validation.IsValidIPForLegacyField(path.Index(i), ip, false, old); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		errs = append(errs, address.Ordinary(ip, path.Index(i))...)
	}
	return errs
}

// validateBalancer judges what only services with a load balancer have.
func validateBalancer(s *corev1.Service, spec *field.Path) (errs field.ErrorList) {
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	errs = append(errs, validateSourceRanges(s, balanced, spec.Child("loadBalancerSourceRanges"))...)
	if s.Spec.AllocateLoadBalancerNodePorts != nil && !balanced {
		errs = append(errs, field.Forbidden(spec.Child("allocateLoadBalancerNodePorts"), onlyBalancer))
	}
	if balanced && s.Spec.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(spec.Child("allocateLoadBalancerNodePorts"), ""))
	}
	if class := s.Spec.LoadBalancerClass; class != nil {
		path := spec.Child("loadBalancerClass")
		if !balanced {
			return append(errs, field.Forbidden(path, onlyBalancer))
		}
		for _, msg := range validation.IsQualifiedName(*class) {
			errs = append(errs, field.Invalid(path, *class, msg))
		}
	}
	return errs
}

func validateSourceRanges(s *corev1.Service, balanced bool, path *field.Path) (errs field.ErrorList) {
	if len(s.Spec.LoadBalancerSourceRanges) > 0 {
		if !balanced {
			errs = append(errs, field.Forbidden(path, onlyBalancer))
		}
		for i, cidr := range s.Spec.LoadBalancerSourceRanges {
			// Blanks around were always allowed.
			errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), strings.TrimSpace(cidr), false, nil)...)
		}
		return errs
	}
	text, ok := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if !ok {
		return nil
	}
	path = field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !balanced {
		errs = append(errs, field.Forbidden(path, onlyBalancer))
	}
	if text = strings.TrimSpace(text); text == "" {
		return errs
	}
	for cidr := range strings.SplitSeq(text, ",") {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path, strings.TrimSpace(cidr), false, nil)...)
	}
	return errs
}

func validateTraffic(s *corev1.Service, spec *field.Path) (errs field.ErrorList) {
	external := spec.Child("externalTrafficPolicy")
	if reachable(s) {
		errs = append(errs, validateSupported(s.Spec.ExternalTrafficPolicy, external,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if s.Spec.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(external, s.Spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	health, port := spec.Child("healthCheckNodePort"), s.Spec.HealthCheckNodePort
	switch {
	case !needsHealthPort(s) && port != 0:
		errs = append(errs, field.Invalid(health, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	case needsHealthPort(s) && port == 0:
		errs = append(errs, field.Required(health, ""))
	case needsHealthPort(s):
		for _, msg := range validation.IsValidPortNum(int(port)) {
			errs = append(errs, field.Invalid(health, port, msg))
		}
	}
	internal := spec.Child("internalTrafficPolicy")
	if p := s.Spec.InternalTrafficPolicy; p == nil {
		if needsIP(s) {
			errs = append(errs, field.Required(internal, ""))
		}
	} else if *p != corev1.ServiceInternalTrafficPolicyCluster && *p != corev1.ServiceInternalTrafficPolicyLocal {
		errs = append(errs, field.NotSupported(internal, *p,
			[]corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}))
	}
	known := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameNode, corev1.ServiceTrafficDistributionPreferSameZone}
	if d := s.Spec.TrafficDistribution; d != nil && !slices.Contains(known, *d) {
		errs = append(errs, field.NotSupported(spec.Child("trafficDistribution"), *d, known))
	}
	return errs
}

// validateStatus judges what a load balancer reported.
func validateStatus(next, _ *corev1.Service) (errs field.ErrorList) {
	path := field.NewPath("status", "loadBalancer", "ingress")
	in := next.Status.LoadBalancer.Ingress
	if next.Spec.Type != corev1.ServiceTypeLoadBalancer && len(in) != 0 {
		return field.ErrorList{field.Forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	for i := range in {
		errs = append(errs, validateIngress(&in[i], path.Index(i))...)
	}
	return errs
}

func validateIngress(in *corev1.LoadBalancerIngress, path *field.Path) (errs field.ErrorList) {
	if in.IP != "" {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("ip"), in.IP, false, nil)...)
	}
	mode := path.Child("ipMode")
	switch {
	case in.IP != "" && in.IPMode == nil:
		errs = append(errs, field.Required(mode, "must be specified when `ip` is set"))
	case in.IP == "" && in.IPMode != nil:
		errs = append(errs, field.Forbidden(mode, "may not be specified when `ip` is not set"))
	case in.IPMode != nil:
		errs = append(errs, validateSupported(*in.IPMode, mode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
	}
	if in.Hostname != "" {
		for _, msg := range validation.IsDNS1123Subdomain(in.Hostname) {
			errs = append(errs, field.Invalid(path.Child("hostname"), in.Hostname, msg))
		}
		if netutils.ParseIPSloppy(in.Hostname) != nil {
			errs = append(errs, field.Invalid(path.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	return errs
}

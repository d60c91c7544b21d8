package service

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// needsIP: the type of service has cluster addresses (or says None).
func needsIP(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return true
	}
	return false
}

// needsNodePort: the type of service may have node ports.
func needsNodePort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// wantsNodePort: ports without a node port are given one.
func wantsNodePort(s *corev1.Service) bool {
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	}
	return s.Spec.Type == corev1.ServiceTypeNodePort
}

// needsHealthPort: balancers ask nodes whether they have endpoints.
func needsHealthPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// reachable: traffic may come from outside the cluster.
func reachable(s *corev1.Service) bool {
	return needsNodePort(s) || s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

func headless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

func sameIPs(a, b *corev1.Service) bool { return slices.Equal(a.Spec.ClusterIPs, b.Spec.ClusterIPs) }
func sameFamilies(a, b *corev1.Service) bool {
	return slices.Equal(a.Spec.IPFamilies, b.Spec.IPFamilies)
}

func sameNodePorts(a, b *corev1.Service) bool {
	ports := func(s *corev1.Service) map[int32]bool {
		set := map[int32]bool{}
		for i := range s.Spec.Ports {
			if p := s.Spec.Ports[i].NodePort; p != 0 {
				set[p] = true
			}
		}
		return set
	}
	pa, pb := ports(a), ports(b)
	if len(pa) != len(pb) {
		return false
	}
	for p := range pa {
		if !pb[p] {
			return false
		}
	}
	return true
}

func equalPtr[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func policyIs(s *corev1.Service, want corev1.IPFamilyPolicy) bool {
	return s.Spec.IPFamilyPolicy != nil && *s.Spec.IPFamilyPolicy == want
}

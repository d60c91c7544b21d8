package service

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/resource"
)

const affinityTimeout = int32(10800)

func setDefaults(s *corev1.Service) {
	spec := &s.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(affinityTimeout)},
			}
		}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if reachable(s) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.InternalTrafficPolicy == nil && needsIP(s) {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	if spec.AllocateLoadBalancerNodePorts == nil {
		spec.AllocateLoadBalancerNodePorts = new(true)
	}
	for i := range s.Status.LoadBalancer.Ingress {
		if in := &s.Status.LoadBalancer.Ingress[i]; in.IP != "" && in.IPMode == nil {
			in.IPMode = new(corev1.LoadBalancerIPModeVIP)
		}
	}
}

// prepare keeps status, forgets what a new type has no use for and remembers
// what was allocated where the user did not repeat it.
func prepare(_ *resource.Request, next, prev *corev1.Service) {
	if prev == nil {
		next.Status = corev1.ServiceStatus{}
		syncIPs(next, nil)
		return
	}
	next.Status = prev.Status
	keepAllocated(next, prev)
	syncIPs(next, prev)
	dropUnused(next, prev)
}

// keepAllocated fills in allocated values that an update left out.
func keepAllocated(next, prev *corev1.Service) {
	if needsIP(prev) && needsIP(next) {
		if next.Spec.ClusterIP == "" {
			next.Spec.ClusterIP = prev.Spec.ClusterIP
		}
		if len(next.Spec.ClusterIPs) == 0 && next.Spec.ClusterIP == prev.Spec.ClusterIP {
			next.Spec.ClusterIPs = append([]string(nil), prev.Spec.ClusterIPs...)
		}
	}
	if needsNodePort(prev) && needsNodePort(next) {
		keepNodePorts(next, prev)
	}
	if needsHealthPort(prev) && needsHealthPort(next) && next.Spec.HealthCheckNodePort == 0 {
		next.Spec.HealthCheckNodePort = prev.Spec.HealthCheckNodePort
	}
}

// keepNodePorts gives ports their old node ports by name, unless the user has
// given those to another port.
func keepNodePorts(next, prev *corev1.Service) {
	byName, used := map[string]int32{}, map[int32]bool{}
	for i := range prev.Spec.Ports {
		byName[prev.Spec.Ports[i].Name] = prev.Spec.Ports[i].NodePort
	}
	for i := range next.Spec.Ports {
		if p := next.Spec.Ports[i].NodePort; p != 0 {
			used[p] = true
		}
	}
	for i := range next.Spec.Ports {
		p := &next.Spec.Ports[i]
		if old := byName[p.Name]; p.NodePort == 0 && !used[old] {
			p.NodePort = old
			used[old] = true
		}
	}
}

// syncIPs keeps the single and the plural cluster address in step for clients
// that know only one of them. Contradictions are left for validation.
func syncIPs(next, prev *corev1.Service) {
	n := &next.Spec
	if prev == nil {
		if n.ClusterIP != "" && len(n.ClusterIPs) == 0 {
			n.ClusterIPs = []string{n.ClusterIP}
		}
		return
	}
	p := &prev.Spec
	if n.ClusterIP == p.ClusterIP {
		if len(p.ClusterIPs) > 0 && len(n.ClusterIPs) == 0 {
			n.ClusterIPs = append([]string(nil), p.ClusterIPs...)
		}
		return
	}
	switch {
	case p.ClusterIP == "" && n.ClusterIP != "" && len(n.ClusterIPs) == 0:
		n.ClusterIPs = []string{n.ClusterIP}
	case !sameIPs(next, prev):
	case n.ClusterIP == "":
		n.ClusterIPs = nil
	case len(n.ClusterIPs) > 0:
		n.ClusterIPs = append([]string{n.ClusterIP}, n.ClusterIPs[1:]...)
	}
}

// dropUnused clears values that the old type needed, the new one does not, and
// the user did not touch. Touched ones are left for validation to refuse.
func dropUnused(next, prev *corev1.Service) {
	n, p := &next.Spec, &prev.Spec
	if needsIP(prev) && !needsIP(next) {
		if sameIPs(next, prev) {
			n.ClusterIP, n.ClusterIPs = "", nil
		}
		if sameFamilies(next, prev) {
			n.IPFamilies = nil
		}
		if equalPtr(n.IPFamilyPolicy, p.IPFamilyPolicy) {
			n.IPFamilyPolicy = nil
		}
	}
	if needsNodePort(prev) && !needsNodePort(next) && sameNodePorts(next, prev) {
		for i := range n.Ports {
			n.Ports[i].NodePort = 0
		}
	}
	if needsHealthPort(prev) && !needsHealthPort(next) && n.HealthCheckNodePort == p.HealthCheckNodePort {
		n.HealthCheckNodePort = 0
	}
	if p.Type == corev1.ServiceTypeLoadBalancer && n.Type != corev1.ServiceTypeLoadBalancer {
		if equalPtr(n.AllocateLoadBalancerNodePorts, p.AllocateLoadBalancerNodePorts) {
			n.AllocateLoadBalancerNodePorts = nil
		}
		if equalPtr(n.LoadBalancerClass, p.LoadBalancerClass) {
			n.LoadBalancerClass = nil
		}
	}
	if reachable(prev) && !reachable(next) && n.ExternalTrafficPolicy == p.ExternalTrafficPolicy {
		n.ExternalTrafficPolicy = ""
	}
}

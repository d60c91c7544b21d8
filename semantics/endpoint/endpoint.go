// Package endpoint judges how a pod stands behind a service.
//
// Job: which pods count, under which address and port.
//
// Not its job: Endpoints and EndpointSlice objects.
package endpoint

import (
	"net/netip"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/semantics/pod"
)

// Listed says whether the pod stands behind its services at all; terminating
// says whether pods being deleted do.
func Listed(p *corev1.Pod, terminating bool) bool {
	return !pod.Finished(p) && p.Status.PodIP != "" && (terminating || p.DeletionTimestamp == nil)
}

// Address returns the pod's address of the family, "" if it has none.
func Address(p *corev1.Pod, family corev1.IPFamily) string {
	for _, ip := range p.Status.PodIPs {
		if Family(ip.IP) == family {
			return ip.IP
		}
	}
	if Family(p.Status.PodIP) == family {
		return p.Status.PodIP
	}
	return ""
}

// Family returns the family of an address.
func Family(addr string) corev1.IPFamily {
	if a, err := netip.ParseAddr(addr); err == nil && a.Is6() && !a.Is4In6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// Families returns the families a service has, those of older servers' objects included.
func Families(s *corev1.Service) []corev1.IPFamily {
	if len(s.Spec.IPFamilies) > 0 {
		return s.Spec.IPFamilies
	}
	if s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
		return []corev1.IPFamily{Family(s.Spec.ClusterIP)}
	}
	return []corev1.IPFamily{corev1.IPv4Protocol}
}

// Port returns the number of the pod's port that a service's port leads to.
func Port(p *corev1.Pod, sp *corev1.ServicePort) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		return sp.TargetPort.IntVal, true
	}
	find := func(c *corev1.Container) (int32, bool) {
		for _, cp := range c.Ports {
			if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
				return cp.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range p.Spec.Containers {
		if n, ok := find(&p.Spec.Containers[i]); ok {
			return n, true
		}
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; pod.Sidecar(c) {
			if n, ok := find(c); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// Selects says whether the service's selector chooses labels l.
func Selects(s *corev1.Service, l map[string]string) bool {
	return len(s.Spec.Selector) > 0 && labels.Set(s.Spec.Selector).AsSelectorPreValidated().Matches(labels.Set(l))
}

// Changed says whether two versions of a pod differ behind a service.
func Changed(old, new *corev1.Pod) bool {
	return old.Status.PodIP != new.Status.PodIP || !reflect.DeepEqual(old.Status.PodIPs, new.Status.PodIPs) ||
		old.Spec.NodeName != new.Spec.NodeName || pod.Ready(old) != pod.Ready(new) || pod.Finished(old) != pod.Finished(new) ||
		(old.DeletionTimestamp == nil) != (new.DeletionTimestamp == nil) ||
		old.Spec.Hostname != new.Spec.Hostname || old.Spec.Subdomain != new.Spec.Subdomain || !reflect.DeepEqual(old.Labels, new.Labels)
}

// Hostname returns the name the pod has below the service, "" if none.
func Hostname(p *corev1.Pod, s *corev1.Service) string {
	if p.Spec.Hostname != "" && p.Spec.Subdomain == s.Name && p.Namespace == s.Namespace {
		return p.Spec.Hostname
	}
	return ""
}

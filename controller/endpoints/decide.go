package endpoints

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/semantics/endpoint"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// subsetsOf lists the pods behind the service, those with the same ports
// together, in an order that depends on nothing but themselves. over says that
// some were left out.
func subsetsOf(s *corev1.Service, pods []*corev1.Pod) (subsets []corev1.EndpointSubset, over bool) {
	groups := map[string]*corev1.EndpointSubset{}
	total := 0
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range pods {
		if !endpoint.Listed(p, s.Spec.PublishNotReadyAddresses) {
			continue
		}
		addr := endpoint.Address(p, endpoint.Families(s)[0])
		if addr == "" {
			continue
		}
		if total >= perEndpoints {
			return finish(groups), true
		}
		ports, ok := portsOf(s, p)
		if !ok {
			continue
		}
		total++
		key := fmt.Sprint(ports)
		g := groups[key]
		if g == nil {
			g = &corev1.EndpointSubset{Ports: ports}
			groups[key] = g
		}
		a := corev1.EndpointAddress{IP: addr, Hostname: endpoint.Hostname(p, s),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		if p.Spec.NodeName != "" {
			name := p.Spec.NodeName
			a.NodeName = &name
		}
		if s.Spec.PublishNotReadyAddresses || pod.Ready(p) {
			g.Addresses = append(g.Addresses, a)
		} else {
			g.NotReadyAddresses = append(g.NotReadyAddresses, a)
		}
	}
	return finish(groups), false
}

// portsOf resolves the service's ports for one pod; not ok when none of them leads anywhere.
func portsOf(s *corev1.Service, p *corev1.Pod) ([]corev1.EndpointPort, bool) {
	var ports []corev1.EndpointPort
	for i := range s.Spec.Ports {
		sp := &s.Spec.Ports[i]
		if n, ok := endpoint.Port(p, sp); ok {
			ports = append(ports, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
		}
	}
	slices.SortFunc(ports, func(a, b corev1.EndpointPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Name, b.Name))
	})
	// A headless service may have no ports at all.
	return ports, len(ports) > 0 || len(s.Spec.Ports) == 0 && s.Spec.ClusterIP == corev1.ClusterIPNone
}

func finish(groups map[string]*corev1.EndpointSubset) []corev1.EndpointSubset {
	var out []corev1.EndpointSubset
	byIP := func(a, b corev1.EndpointAddress) int { return strings.Compare(a.IP, b.IP) }
	for _, g := range groups {
		slices.SortFunc(g.Addresses, byIP)
		slices.SortFunc(g.NotReadyAddresses, byIP)
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b corev1.EndpointSubset) int {
		return strings.Compare(fmt.Sprint(a.Ports), fmt.Sprint(b.Ports))
	})
	return out
}

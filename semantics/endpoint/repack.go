package endpoint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// host is one address as far as subsets tell them apart.
type host struct {
	ip    string
	uid   types.UID
	ready bool
}

// Repack writes subsets in the canonical way: for each port the set of hosts
// behind it, ports with the same hosts together, everything in order.
func Repack(subsets []corev1.EndpointSubset) []corev1.EndpointSubset {
	addresses := map[host]corev1.EndpointAddress{}
	behind := map[portKey]map[host]bool{}
	ports := map[portKey]corev1.EndpointPort{}
	for i := range subsets {
		s := &subsets[i]
		list := s.Ports
		if len(list) == 0 {
			// Headless services may have endpoints without ports.
			list = []corev1.EndpointPort{{Port: -1}}
		}
		for _, p := range list {
			key := keyOf(p)
			ports[key] = p
			if behind[key] == nil {
				behind[key] = map[host]bool{}
			}
			note(s.Addresses, true, behind[key], addresses)
			note(s.NotReadyAddresses, false, behind[key], addresses)
		}
	}
	byHosts := map[string][]corev1.EndpointPort{}
	sets := map[string][]host{}
	for key, hosts := range behind {
		list, name := canonical(hosts)
		sets[name] = list
		byHosts[name] = append(byHosts[name], ports[key])
	}
	var out []corev1.EndpointSubset
	for name, hosts := range sets {
		out = append(out, subset(hosts, addresses, byHosts[name]))
	}
	slices.SortFunc(out, compareSubsets)
	return out
}

type portKey struct {
	name, protocol, app string
	port                int32
}

func keyOf(p corev1.EndpointPort) portKey {
	k := portKey{name: p.Name, protocol: string(p.Protocol), port: p.Port}
	if p.AppProtocol != nil {
		k.app = "=" + *p.AppProtocol
	}
	return k
}

// note adds hosts to a port; one that is not ready anywhere is not ready.
func note(list []corev1.EndpointAddress, ready bool, hosts map[host]bool, addresses map[host]corev1.EndpointAddress) {
	for _, a := range list {
		h := host{ip: a.IP, ready: ready}
		if a.TargetRef != nil {
			h.uid = a.TargetRef.UID
		}
		opposite := h
		opposite.ready = !ready
		if ready && hosts[opposite] {
			continue
		}
		delete(hosts, opposite)
		hosts[h] = true
		if _, known := addresses[h]; !known {
			addresses[h] = a
		}
	}
}

func canonical(hosts map[host]bool) ([]host, string) {
	list := make([]host, 0, len(hosts))
	for h := range hosts {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b host) int {
		ra, rb := 0, 0
		if !a.ready {
			ra = 1
		}
		if !b.ready {
			rb = 1
		}
		return cmp.Or(strings.Compare(a.ip, b.ip), strings.Compare(string(a.uid), string(b.uid)), ra-rb)
	})
	var name strings.Builder
	for _, h := range list {
		fmt.Fprintf(&name, "%q %q %v;", h.ip, h.uid, h.ready)
	}
	return list, name.String()
}

func subset(hosts []host, addresses map[host]corev1.EndpointAddress, ports []corev1.EndpointPort) (s corev1.EndpointSubset) {
	for _, h := range hosts {
		if h.ready {
			s.Addresses = append(s.Addresses, addresses[h])
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, addresses[h])
		}
	}
	slices.SortFunc(ports, comparePorts)
	if len(ports) == 1 && ports[0].Port == -1 {
		ports = nil
	}
	s.Ports = slices.DeleteFunc(ports, func(p corev1.EndpointPort) bool { return p.Port == -1 })
	return s
}

func comparePorts(a, b corev1.EndpointPort) int {
	ka, kb := keyOf(a), keyOf(b)
	return cmp.Or(strings.Compare(ka.name, kb.name), cmp.Compare(ka.port, kb.port),
		strings.Compare(ka.protocol, kb.protocol), strings.Compare(ka.app, kb.app))
}

func compareSubsets(a, b corev1.EndpointSubset) int {
	if c := slices.CompareFunc(a.Ports, b.Ports, comparePorts); c != 0 {
		return c
	}
	byIP := func(x, y corev1.EndpointAddress) int { return strings.Compare(x.IP, y.IP) }
	return cmp.Or(slices.CompareFunc(a.Addresses, b.Addresses, byIP),
		slices.CompareFunc(a.NotReadyAddresses, b.NotReadyAddresses, byIP))
}

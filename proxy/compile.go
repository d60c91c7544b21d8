package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/kit/nft"
)

// Names of maps and sets. Those of endpoints carry the number of endpoints they
// choose from: "endpoints-3", "node-endpoints-3".
const (
	services        = "services"          // address . protocol . port : goto chain
	nodePorts       = "node-ports"        // protocol . port : goto chain
	endpoints       = "endpoints-"        // address . protocol . port . random : address . port
	nodeEndpoints   = "node-endpoints-"   // protocol . port . random : address . port
	hairpin         = "hairpin"           // address . address: an endpoint that calls itself
	noEndpoints     = "no-endpoints"      // address . protocol . port: refused
	noNodeEndpoints = "no-node-endpoints" // protocol . port: refused
)

// Element is the place of one entry: a map and a key in it.
type Element struct{ Set, Key string }

// Rules are the entries of maps that a service needs: place to value. The value
// of a set's entry is empty, that of "services" and "node-ports" is a chain.
type Rules map[Element]string

// Endpoint is one place that answers.
type Endpoint struct {
	Addr netip.Addr
	Port uint16
}

func (e Endpoint) compare(o Endpoint) int {
	return cmp.Or(e.Addr.Compare(o.Addr), cmp.Compare(e.Port, o.Port))
}

// Compile turns a service and its slices into rules. node is this node's name,
// for policies that keep traffic on it.
func Compile(svc *corev1.Service, slicesOf []*discoveryv1.EndpointSlice, node string) Rules {
	r := Rules{}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return r
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		proto, ok := nft.Protocol(string(p.Protocol))
		if !ok {
			continue
		}
		all := choose(slicesOf, p, "")
		local := func() []Endpoint { return choose(slicesOf, p, node) }
		inside, outside := all, all
		if svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal {
			inside = local()
		}
		keepSource := svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
		if keepSource {
			outside = local()
		}
		t := target{proto: proto, port: uint16(p.Port), sticky: stickySeconds(svc)}
		for _, addr := range addresses(svc.Spec.ClusterIPs, []string{svc.Spec.ClusterIP}) {
			t.addr, t.kind = addr, "cluster"
			r.service(t, inside)
		}
		t.kind = "external"
		if keepSource {
			t.kind = "external-local"
		}
		for _, addr := range addresses(svc.Spec.ExternalIPs, loadBalancerIPs(svc)) {
			t.addr = addr
			r.service(t, outside)
		}
		if p.NodePort != 0 {
			t.port = uint16(p.NodePort)
			r.nodePort(t, outside)
		}
		for _, e := range all {
			r[Element{hairpin, string(nft.Key(e.Addr, e.Addr))}] = ""
		}
	}
	return r
}

// target is one address and port that a service answers at.
type target struct {
	kind   string // "cluster", "external", "external-local": how the source is treated
	addr   netip.Addr
	proto  uint8
	port   uint16
	sticky int32 // seconds a client stays with its endpoint; 0 for not at all
}

// chain names the chain that chooses among n endpoints for this kind of target.
func (t target) chain(place string, n int) string {
	name := fmt.Sprintf("%s-%s-%d", place, t.kind, n)
	if t.sticky > 0 {
		name += fmt.Sprintf("-sticky-%d", t.sticky)
	}
	return name
}

func (r Rules) service(t target, eps []Endpoint) {
	if len(eps) == 0 {
		r[Element{noEndpoints, string(nft.Key(t.addr, t.proto, t.port))}] = ""
		return
	}
	r[Element{services, string(nft.Key(t.addr, t.proto, t.port))}] = t.chain("service", len(eps))
	set := fmt.Sprint(endpoints, len(eps))
	for i, e := range eps {
		r[Element{set, string(nft.Key(t.addr, t.proto, t.port, uint32(i)))}] = string(nft.Key(e.Addr, e.Port))
	}
}

func (r Rules) nodePort(t target, eps []Endpoint) {
	if len(eps) == 0 {
		r[Element{noNodeEndpoints, string(nft.Key(t.proto, t.port))}] = ""
		return
	}
	r[Element{nodePorts, string(nft.Key(t.proto, t.port))}] = t.chain("node", len(eps))
	set := fmt.Sprint(nodeEndpoints, len(eps))
	for i, e := range eps {
		r[Element{set, string(nft.Key(t.proto, t.port, uint32(i)))}] = string(nft.Key(e.Addr, e.Port))
	}
}

// choose returns the endpoints of a service port, on node only if that is not
// empty: the ready ones, or when none is, those that still serve while they
// terminate (KEP-1669).
func choose(slicesOf []*discoveryv1.EndpointSlice, p *corev1.ServicePort, node string) []Endpoint {
	var ready, leaving []Endpoint
	for _, s := range slicesOf {
		port, ok := slicePort(s, p)
		if !ok || s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if len(e.Addresses) == 0 || (node != "" && (e.NodeName == nil || *e.NodeName != node)) {
				continue
			}
			addr, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || !addr.Is4() {
				continue
			}
			c := e.Conditions
			switch {
			case c.Ready == nil || *c.Ready:
				ready = append(ready, Endpoint{addr, port})
			case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
				leaving = append(leaving, Endpoint{addr, port})
			}
		}
	}
	if len(ready) == 0 {
		ready = leaving
	}
	slices.SortFunc(ready, Endpoint.compare)
	return slices.Compact(ready)
}

// slicePort finds the slice's number for a service port: ports go by name.
func slicePort(s *discoveryv1.EndpointSlice, p *corev1.ServicePort) (uint16, bool) {
	for _, sp := range s.Ports {
		name, proto := "", corev1.ProtocolTCP
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Protocol != nil {
			proto = *sp.Protocol
		}
		if name == p.Name && proto == p.Protocol && sp.Port != nil {
			return uint16(*sp.Port), true
		}
	}
	return 0, false
}

func stickySeconds(svc *corev1.Service) int32 {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return *c.ClientIP.TimeoutSeconds
	}
	return corev1.DefaultClientIPServiceAffinitySeconds
}

func loadBalancerIPs(svc *corev1.Service) []string {
	var ips []string
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			ips = append(ips, in.IP)
		}
	}
	return ips
}

// addresses parses the IPv4 ones of both lists, each once.
func addresses(lists ...[]string) []netip.Addr {
	var out []netip.Addr
	for _, s := range slices.Concat(lists...) {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

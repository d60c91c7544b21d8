package node

import (
	"net"
	"net/netip"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// apiService is the service by which pods reach the API.
const apiService = metav1.NamespaceDefault + "/kubernetes"

// followServers tells set which API servers there are, as the endpoints of
// default/kubernetes say.
func followServers(slices client.Watchable[discoveryv1.EndpointSlice], set func([]string)) {
	slices.OnChange(func(_, now *discoveryv1.EndpointSlice) {
		if now != nil && now.Namespace+"/"+now.Labels[discoveryv1.LabelServiceName] == apiService && now.AddressType == discoveryv1.AddressTypeIPv4 {
			set(serversOf(now))
		}
	})
}

// serversOf are the addresses and ports of a slice's ready endpoints.
func serversOf(s *discoveryv1.EndpointSlice) []string {
	var list []string
	for _, p := range s.Ports {
		if p.Port == nil {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				list = append(list, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return list
}

// throughBalancer shows the proxy this node's balancer in place of several API
// servers, so that pods, too, are away from a dead one at once, and their
// connections to it closed. A single server is reached as ever.
type throughBalancer struct {
	client.Watchable[discoveryv1.EndpointSlice]
	at netip.AddrPort
}

// By implements client.Watchable.
func (t throughBalancer) By(index, value string) []*discoveryv1.EndpointSlice {
	list := t.Watchable.By(index, value)
	if value != apiService {
		return list
	}
	servers := 0
	for _, s := range list {
		servers += len(serversOf(s))
	}
	if servers < 2 {
		return list
	}
	s := list[0].DeepCopy()
	port := int32(t.at.Port())
	s.AddressType, s.Endpoints = discoveryv1.AddressTypeIPv4, []discoveryv1.Endpoint{{Addresses: []string{t.at.Addr().String()}}}
	s.Ports = s.Ports[:1]
	s.Ports[0].Port = &port
	return []*discoveryv1.EndpointSlice{s}
}

package node

import (
	"net/netip"
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// fixed is a mirror that shows what it was given.
type fixed struct {
	client.Watchable[discoveryv1.EndpointSlice]
	list []*discoveryv1.EndpointSlice
	fn   func(old, now *discoveryv1.EndpointSlice)
}

func (f *fixed) By(string, string) []*discoveryv1.EndpointSlice        { return f.list }
func (f *fixed) OnChange(fn func(old, now *discoveryv1.EndpointSlice)) { f.fn = fn }
func slice(namespace, name string, addrs ...string) *discoveryv1.EndpointSlice {
	port, https, no := int32(6443), "https", false
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &https, Port: &port}}}
	for _, a := range addrs {
		e := discoveryv1.Endpoint{Addresses: []string{a}}
		if a == "192.0.2.99" {
			e.Conditions.Ready = &no
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func TestPodsReachTheAPIThroughTheBalancer(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.7:7445")
	for _, c := range []struct {
		name, service string
		slice         *discoveryv1.EndpointSlice
		want          []string
	}{
		{"several servers", apiService, slice("default", "kubernetes", "192.0.2.1", "192.0.2.2"), []string{"192.0.2.7:7445"}},
		{"one server", apiService, slice("default", "kubernetes", "192.0.2.1"), []string{"192.0.2.1:6443"}},
		{"one that is ready", apiService, slice("default", "kubernetes", "192.0.2.1", "192.0.2.99"), []string{"192.0.2.1:6443"}},
		{"another service", "default/web", slice("default", "web", "192.0.2.1", "192.0.2.2"), []string{"192.0.2.1:6443", "192.0.2.2:6443"}},
	} {
		got := throughBalancer{&fixed{list: []*discoveryv1.EndpointSlice{c.slice}}, at}.By("service", c.service)
		if list := serversOf(got[0]); !slices.Equal(list, c.want) {
			t.Errorf("%s: %v, want %v", c.name, list, c.want)
		}
		if *c.slice.Ports[0].Port != 6443 {
			t.Errorf("%s: the shared slice was changed", c.name)
		}
	}
}

func TestFollowServers(t *testing.T) {
	f := &fixed{}
	var got []string
	followServers(f, func(list []string) { got = list })
	f.fn(nil, slice("default", "web", "192.0.2.9"))
	f.fn(slice("default", "kubernetes"), nil)
	if got != nil {
		t.Errorf("%v, want nothing yet", got)
	}
	f.fn(nil, slice("default", "kubernetes", "192.0.2.1", "192.0.2.2"))
	if want := []string{"192.0.2.1:6443", "192.0.2.2:6443"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

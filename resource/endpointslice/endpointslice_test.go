package endpointslice

import (
	"fmt"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	discoveryv1beta1 "k8s.io/api/discovery/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

func slice(change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: "IPv4", Ports: []discoveryv1.EndpointPort{{Port: new(int32(80))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
	}
	change(s)
	Kind().Default(s)
	return s
}

func TestRules(t *testing.T) {
	for want, change := range map[string]func(*discoveryv1.EndpointSlice){
		"":                            func(*discoveryv1.EndpointSlice) {},
		"addressType: Required value": func(s *discoveryv1.EndpointSlice) { s.AddressType = "" },
		`addressType: Unsupported value: "X": supported values: "FQDN", "IPv4", "IPv6"`:  func(s *discoveryv1.EndpointSlice) { s.AddressType = "X" },
		`endpoints[0].addresses[0]: Invalid value: "192.0.2.1": must be an IPv6 address`: func(s *discoveryv1.EndpointSlice) { s.AddressType = "IPv6" },
		"endpoints[0].addresses: Required value: must contain at least 1 address":        func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil },
		`ports[1].name: Duplicate value: ""`:                                             func(s *discoveryv1.EndpointSlice) { s.Ports = append(s.Ports, discoveryv1.EndpointPort{}) },
		`endpoints[0].hints.forZones[1].name: Duplicate value: "z"`: func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}, {Name: "z"}}}
		},
	} {
		got := ""
		if err := Kind().Validate(slice(change), nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	next := slice(func(s *discoveryv1.EndpointSlice) { s.AddressType = "FQDN"; s.Endpoints = nil })
	if got := Kind().Validate(next, slice(func(*discoveryv1.EndpointSlice) {})).ToAggregate().Error(); got != `addressType: Invalid value: "FQDN": field is immutable` {
		t.Errorf("got %s", got)
	}
}

func TestTopologyBecomesFields(t *testing.T) {
	beta := Kind().Info().Also[0]
	out, err := beta.Store(&discoveryv1beta1.EndpointSlice{Endpoints: []discoveryv1beta1.Endpoint{{
		Topology: map[string]string{"topology.kubernetes.io/zone": "z", "kubernetes.io/hostname": "n", "rack": "7"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	e := out.(*discoveryv1.EndpointSlice).Endpoints[0]
	if *e.Zone != "z" || *e.NodeName != "n" || len(e.DeprecatedTopology) != 1 || e.DeprecatedTopology["rack"] != "7" {
		t.Errorf("got %+v", e)
	}
	now := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{e}}
	Kind().Prepare(&resource.Request{Version: schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}}, now, nil)
	if now.Endpoints[0].DeprecatedTopology != nil {
		t.Error("v1 lets its users set the old map")
	}
}

func TestColumns(t *testing.T) {
	s := slice(func(s *discoveryv1.EndpointSlice) { s.Name = "s" })
	if got := strings.Trim(fmt.Sprint(Kind().Cells(s, time.Unix(0, 0))), "[]"); got != "s IPv4 80 192.0.2.1 <unknown>" {
		t.Errorf("got %q", got)
	}
}

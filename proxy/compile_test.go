package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// serviceOf makes a service "default/web" at 10.96.0.10:80.
func serviceOf(change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
			Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}},
	}
	if change != nil {
		change(s)
	}
	return s
}

// sliceOf makes a slice of "web" with endpoints ADDR, ADDR@NODE, or -ADDR for
// one that terminates but serves, !ADDR for one that is not ready.
func sliceOf(port int32, endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(""), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(port)}},
	}
	for _, e := range endpoints {
		addr, node, _ := strings.Cut(strings.TrimLeft(e, "-!"), "@")
		ep := discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: ptr.To(node)}
		ep.Conditions.Ready = ptr.To(e[0] != '-' && e[0] != '!')
		ep.Conditions.Serving, ep.Conditions.Terminating = ptr.To(e[0] != '!'), ptr.To(e[0] == '-')
		s.Endpoints = append(s.Endpoints, ep)
	}
	return s
}

// show prints rules as lines a person reads.
func show(r Rules) string {
	var lines []string
	for e, v := range r {
		key := strings.Trim(strings.Join(strings.Fields(fmt.Sprint([]byte(e.Key))), "."), "[]")
		val := v
		if ep, ok := endpointOf(e, v); ok {
			val = fmt.Sprintf("%s:%d", ep.Addr, ep.Port)
		}
		lines = append(lines, strings.TrimSpace(e.Set+" "+key+" "+val))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestCompile(t *testing.T) {
	local := corev1.ServiceExternalTrafficPolicyLocal
	for name, c := range map[string]struct {
		svc    *corev1.Service
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		"cluster address with two endpoints": {serviceOf(nil), []*discoveryv1.EndpointSlice{sliceOf(8080, "10.244.0.3", "10.244.0.2", "!10.244.0.9")}, `
endpoints-2 10.96.0.10.6.0.0.0.0.80.0.0.0.0.0.0 10.244.0.2:8080
endpoints-2 10.96.0.10.6.0.0.0.0.80.0.0.1.0.0.0 10.244.0.3:8080
hairpin 10.244.0.2.10.244.0.2
hairpin 10.244.0.3.10.244.0.3
services 10.96.0.10.6.0.0.0.0.80.0.0 service-cluster-2`},
		"no endpoint": {serviceOf(nil), nil, `no-endpoints 10.96.0.10.6.0.0.0.0.80.0.0`},
		"only terminating endpoints still serve": {serviceOf(nil), []*discoveryv1.EndpointSlice{sliceOf(8080, "-10.244.0.2")}, `
endpoints-1 10.96.0.10.6.0.0.0.0.80.0.0.0.0.0.0 10.244.0.2:8080
hairpin 10.244.0.2.10.244.0.2
services 10.96.0.10.6.0.0.0.0.80.0.0 service-cluster-1`},
		"node port that keeps the source uses this node's endpoints": {serviceOf(func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, local, 30080
		}), []*discoveryv1.EndpointSlice{sliceOf(8080, "10.244.0.2@here", "10.244.1.2@there")}, `
endpoints-2 10.96.0.10.6.0.0.0.0.80.0.0.0.0.0.0 10.244.0.2:8080
endpoints-2 10.96.0.10.6.0.0.0.0.80.0.0.1.0.0.0 10.244.1.2:8080
hairpin 10.244.0.2.10.244.0.2
hairpin 10.244.1.2.10.244.1.2
node-endpoints-1 6.0.0.0.117.128.0.0.0.0.0.0 10.244.0.2:8080
node-ports 6.0.0.0.117.128.0.0 node-external-local-1
services 10.96.0.10.6.0.0.0.0.80.0.0 service-cluster-2`},
		"session affinity": {serviceOf(func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
			[]*discoveryv1.EndpointSlice{sliceOf(8080, "10.244.0.2")}, `
endpoints-1 10.96.0.10.6.0.0.0.0.80.0.0.0.0.0.0 10.244.0.2:8080
hairpin 10.244.0.2.10.244.0.2
services 10.96.0.10.6.0.0.0.0.80.0.0 service-cluster-1-sticky-10800`},
		"headless":      {serviceOf(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }), []*discoveryv1.EndpointSlice{sliceOf(8080, "10.244.0.2")}, ""},
		"external name": {serviceOf(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }), nil, ""},
	} {
		if got := show(Compile(c.svc, c.slices, "here")); got != strings.TrimSpace(c.want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, strings.TrimSpace(c.want))
		}
	}
}

func TestChainNamesSayWhatTheyDo(t *testing.T) {
	for name, want := range map[string]chooser{
		"service-cluster-2":               {false, "cluster", 2, 0},
		"node-external-local-11":          {true, "external-local", 11, 0},
		"service-external-1-sticky-10800": {false, "external", 1, 10800e9},
	} {
		if got, err := parseChooser(name); err != nil || got != want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if _, err := parseChooser("service-cluster-x"); err == nil {
		t.Error("a chain that is not ours was taken for one")
	}
}

// Whatever the order of changes, the maps end up as if laid once: safety of
// shared entries and of the difference.
func TestStateFollowsServicesWhateverTheOrder(t *testing.T) {
	held := map[Element]string{}
	s := newState()
	step := func(service string, r Rules) {
		c := newChange()
		s.set(service, r, c)
		for e, v := range c.del {
			if held[e] != v {
				t.Fatalf("removed %v, which was not there", e)
			}
			delete(held, e)
		}
		maps.Copy(held, c.put)
	}
	a := Compile(serviceOf(nil), []*discoveryv1.EndpointSlice{sliceOf(80, "10.244.0.2", "10.244.0.3")}, "")
	b := Compile(serviceOf(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.96.0.11", nil }), []*discoveryv1.EndpointSlice{sliceOf(80, "10.244.0.3")}, "")
	a2 := Compile(serviceOf(nil), []*discoveryv1.EndpointSlice{sliceOf(80, "10.244.0.3", "10.244.0.4", "10.244.0.5")}, "")
	step("a", a)
	step("b", b)
	step("a", a2)
	want := maps.Clone(a2)
	maps.Copy(want, b)
	if !maps.Equal(held, map[Element]string(want)) {
		t.Errorf("held:\n%s\nwant:\n%s", show(held), show(want))
	}
	step("a", nil)
	if !maps.Equal(held, map[Element]string(b)) {
		t.Errorf("after a left: %s", show(held))
	}
	if s.uses[Element{hairpin, string(append(netip.MustParseAddr("10.244.0.3").AsSlice(), netip.MustParseAddr("10.244.0.3").AsSlice()...))}] != 1 {
		t.Error("the shared entry is not counted right")
	}
}

package networkpolicy

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestDefaults(t *testing.T) {
	p := &policy{Spec: networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{Ports: []networkingv1.NetworkPolicyPort{{}}}}}}
	Kind().Default(p)
	if !slices.Equal(p.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) || *p.Spec.Egress[0].Ports[0].Protocol != "TCP" {
		t.Errorf("got %+v", p.Spec)
	}
}

func TestRules(t *testing.T) {
	peer := func(p networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{p}}}}
	}
	port := func(p networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicySpec {
		return networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{p}}}}
	}
	block := func(cidr string, except ...string) *networkingv1.IPBlock {
		return &networkingv1.IPBlock{CIDR: cidr, Except: except}
	}
	for want, spec := range map[string]networkingv1.NetworkPolicySpec{
		"": peer(networkingv1.NetworkPolicyPeer{IPBlock: block("10.0.0.0/8", "10.1.0.0/16")}),
		"spec.ingress[0].from[0]: Required value: must specify a peer":                                                 peer(networkingv1.NetworkPolicyPeer{}),
		"spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer":                            peer(networkingv1.NetworkPolicyPeer{IPBlock: block("10.0.0.0/8"), PodSelector: &metav1.LabelSelector{}}),
		"spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`": peer(networkingv1.NetworkPolicyPeer{IPBlock: block("10.0.0.0/8", "11.0.0.0/16")}),
		"spec.ingress[0].from[0].ipBlock.cidr: Required value":                                                         peer(networkingv1.NetworkPolicyPeer{IPBlock: block("")}),
		"spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`":                 port(networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(80)), EndPort: new(int32(79))}),
		"spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric":         port(networkingv1.NetworkPolicyPort{Port: new(intstr.FromString("http")), EndPort: new(int32(79))}),
		`spec.policyTypes[0]: Unsupported value: "X": supported values: "Ingress", "Egress"`:                           {PolicyTypes: []networkingv1.PolicyType{"X"}},
	} {
		p := &policy{Spec: spec}
		Kind().Default(p)
		got := ""
		if err := Kind().Validate(p, nil).ToAggregate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

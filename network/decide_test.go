package network

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name, ip, pods string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: pods},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}},
	}
}

func TestPeersAreTheOtherNodesWithAnAddressAndARange(t *testing.T) {
	got := Peers([]*corev1.Node{
		node("self", "100.64.0.2", "10.244.0.0/24"), node("b", "100.64.0.3", "10.244.1.0/24"),
		node("joining", "100.64.0.4", ""), node("lost", "", "10.244.3.0/24"),
	}, "self")
	want := map[netip.Prefix]Peer{netip.MustParsePrefix("10.244.1.0/24"): {netip.MustParseAddr("100.64.0.3"), netip.MustParsePrefix("10.244.1.0/24")}}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// Whatever came before, doing what Decide says leads to what is wanted.
func TestDecideLeadsFromAnyStateToAnyOther(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() map[netip.Prefix]Peer {
		m := map[netip.Prefix]Peer{}
		for range rng.IntN(6) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(rng.IntN(5)), 0}), 24)
			m[p] = Peer{netip.AddrFrom4([4]byte{100, 64, 0, byte(rng.IntN(4))}), p}
		}
		return m
	}
	for range 1000 {
		have, want := random(), random()
		now := maps.Clone(have)
		for _, a := range Decide(have, want) {
			if a.Remove {
				delete(now, a.Pods)
				continue
			}
			if _, there := now[a.Pods]; there {
				t.Fatalf("%v was set up twice", a.Pods)
			}
			now[a.Pods] = a.Peer
		}
		if !maps.Equal(now, want) {
			t.Fatalf("from %v came %v, want %v", have, now, want)
		}
	}
}

func TestTunnelAddressesDifferByNode(t *testing.T) {
	a, b := tunnelMAC(netip.MustParseAddr("100.64.0.2")), tunnelMAC(netip.MustParseAddr("100.64.0.3"))
	if a.String() != "0e:53:64:40:00:02" || a.String() == b.String() {
		t.Errorf("%s and %s", a, b)
	}
}

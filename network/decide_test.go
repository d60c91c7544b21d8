package network

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func node(name, ip, pods string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: pods},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}}},
	}
}

func annotated(n *corev1.Node, notes map[string]string) *corev1.Node {
	n.Annotations = notes
	return n
}

func TestPeersAreTheOtherNodesWithAnAddressAndARange(t *testing.T) {
	vxlan := Backend{Type: VXLAN}.withDefaults()
	flannel := map[string]string{
		"flannel.alpha.coreos.com/kube-subnet-manager": "true", "flannel.alpha.coreos.com/public-ip": "203.0.113.9",
		"flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/backend-data": `{"VNI":1,"VtepMAC":"82:4b:b6:2f:54:4e"}`,
	}
	other := maps.Clone(flannel)
	other["flannel.alpha.coreos.com/backend-type"] = "host-gw"
	bad := maps.Clone(flannel)
	bad["flannel.alpha.coreos.com/backend-data"] = `{"VtepMAC":"none"}`
	nodes := []*corev1.Node{
		node("self", "100.64.0.2", "10.244.0.0/24"), node("b", "100.64.0.3", "10.244.1.0/24"),
		node("joining", "100.64.0.4", ""), node("lost", "", "10.244.3.0/24"),
		annotated(node("flannel", "100.64.0.5", "10.244.4.0/24"), flannel),
		annotated(node("other", "100.64.0.6", "10.244.5.0/24"), other),
		annotated(node("bad", "100.64.0.7", "10.244.6.0/24"), bad),
	}
	told := Peer{"flannel", addr("203.0.113.9"), prefix("10.244.4.0/24"), MAC{0x82, 0x4b, 0xb6, 0x2f, 0x54, 0x4e}}
	guessed := Peer{"b", addr("100.64.0.3"), prefix("10.244.1.0/24"), MAC{0x0e, 0x53, 100, 64, 0, 3}}
	for _, c := range []struct {
		guess bool
		want  []Peer
	}{{true, []Peer{guessed, told}}, {false, []Peer{told}}} {
		want := map[netip.Prefix]Peer{}
		for _, p := range c.want {
			want[p.Pods] = p
		}
		got, refused := annotations("").Peers(nodes, "self", vxlan, c.guess)
		if !maps.Equal(got, want) {
			t.Errorf("guess %v: got %v, want %v", c.guess, got, want)
		}
		if len(refused) != 2 || refused["other"] != `backend "host-gw", and ours is "vxlan"` || refused["bad"] != `backend data: VtepMAC "none": not a hardware address` {
			t.Errorf("refused %q", refused)
		}
	}
}

func TestAnnotationsAreFlannels(t *testing.T) {
	l := leaseOf(Backend{Type: VXLAN}.withDefaults(), addr("100.64.0.3"), addr("100.64.0.3"))
	want := map[string]string{
		"flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/backend-data": `{"VNI":1,"VtepMAC":"0e:53:64:40:00:03"}`,
		"flannel.alpha.coreos.com/public-ip": "100.64.0.3", "flannel.alpha.coreos.com/kube-subnet-manager": "true",
	}
	if got := annotations("").write(l); !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	n := annotated(node("n", "100.64.0.3", "10.244.1.0/24"), maps.Clone(want))
	if back, ok := annotations("").read(n); !ok || back.PublicIP != l.PublicIP || string(back.BackendData) != string(l.BackendData) {
		t.Errorf("read back %+v", back)
	}
	if got := annotations("").write(leaseOf(Backend{Type: HostGW}, addr("100.64.0.3"), addr("100.64.0.3")))["flannel.alpha.coreos.com/backend-data"]; got != "null" {
		t.Errorf("data of host-gw: %q", got)
	}
	for prefix, want := range map[string]string{"": "flannel.alpha.coreos.com/public-ip", "net.example": "net.example/public-ip",
		"net.example/a": "net.example/a-public-ip", "net.example/a-": "net.example/a-public-ip", "net.example/": "net.example/public-ip"} {
		if got := annotations(prefix).key("public-ip"); got != want {
			t.Errorf("prefix %q: %s", prefix, got)
		}
	}
	n.Annotations["flannel.alpha.coreos.com/public-ip-overwrite"] = "198.51.100.7"
	if got := annotations("").overwrite(n, l.PublicIP); got != addr("198.51.100.7") {
		t.Errorf("overwritten address: %s", got)
	}
	if got := missing(n, want); len(got) != 0 {
		t.Errorf("missing %q", got)
	}
	delete(n.Annotations, "flannel.alpha.coreos.com/backend-type")
	if got := missing(n, want); len(got) != 1 {
		t.Errorf("missing %q", got)
	}
}

func TestWant(t *testing.T) {
	p := Peer{"b", addr("100.64.0.3"), prefix("10.244.1.0/24"), MAC{1}}
	peers := map[netip.Prefix]Peer{p.Pods: p}
	never := func(netip.Addr) bool { return false }
	always := func(netip.Addr) bool { return true }
	plain := Facts{map[netip.Prefix]Route{p.Pods: {Via: p.Node}}, map[netip.Addr]MAC{}, map[MAC]netip.Addr{}}
	for what, c := range map[string]struct{ got, want Facts }{
		"host routes":    {Want(peers, false, never), plain},
		"direct routing": {Want(peers, true, always), plain},
		"tunnel": {Want(peers, true, never), Facts{map[netip.Prefix]Route{p.Pods: {Via: addr("10.244.1.0"), Tunnel: true}},
			map[netip.Addr]MAC{addr("10.244.1.0"): {1}}, map[MAC]netip.Addr{{1}: p.Node}}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", what, c.got, c.want)
		}
	}
}

// Whatever came before, doing what Decide says leads to what is wanted.
func TestDecideLeadsFromAnyStateToAnyOther(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() Facts {
		peers := map[netip.Prefix]Peer{}
		for range rng.IntN(6) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(rng.IntN(5)), 0}), 24)
			n := netip.AddrFrom4([4]byte{100, 64, 0, byte(rng.IntN(4))})
			peers[p] = Peer{"", n, p, tunnelMAC(n)}
		}
		return Want(peers, rng.IntN(3) > 0, func(netip.Addr) bool { return rng.IntN(4) == 0 })
	}
	for range 1000 {
		have, want := random(), random()
		c := Decide(have, want)
		now := Facts{maps.Clone(have.Routes), maps.Clone(have.Neighbours), maps.Clone(have.Forwards)}
		play(now.Routes, want.Routes, c.RoutesGone, c.RoutesCome)
		play(now.Neighbours, want.Neighbours, c.NeighboursGone, c.NeighboursCome)
		play(now.Forwards, want.Forwards, c.ForwardsGone, c.ForwardsCome)
		if !reflect.DeepEqual(now, want) {
			t.Fatalf("from %v came %v, want %v", have, now, want)
		}
		if again := Decide(want, want); !again.Empty() {
			t.Fatalf("nothing changed, and yet %+v", again)
		}
	}
}

func play[K, V comparable](now, want map[K]V, gone, come []K) {
	for _, k := range gone {
		delete(now, k)
	}
	for _, k := range come {
		now[k] = want[k]
	}
}

func TestTunnelAddressesDifferByNode(t *testing.T) {
	a, b := tunnelMAC(addr("100.64.0.2")), tunnelMAC(addr("100.64.0.3"))
	if a.String() != "0e:53:64:40:00:02" || a == b {
		t.Errorf("%s and %s", a, b)
	}
}

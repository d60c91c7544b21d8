package network

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Peer is another node: how its pods are reached.
type Peer struct {
	Node netip.Addr
	Pods netip.Prefix
}

// Action is one change of the kernel's state: a peer to reach, or no longer.
type Action struct {
	Remove bool
	Peer
}

// Peers reads the other nodes' ranges from Node objects. Nodes without an
// address or a range, and this node, are left out.
func Peers(nodes []*corev1.Node, self string) map[netip.Prefix]Peer {
	out := map[netip.Prefix]Peer{}
	for _, n := range nodes {
		if n.Name == self {
			continue
		}
		pods, err := netip.ParsePrefix(n.Spec.PodCIDR)
		addr, ok := InternalIP(n)
		if err == nil && ok && pods.Addr().Is4() {
			out[pods.Masked()] = Peer{Node: addr, Pods: pods.Masked()}
		}
	}
	return out
}

// InternalIP returns a node's first internal IPv4 address.
func InternalIP(n *corev1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() && a.Type == corev1.NodeInternalIP {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// Decide returns the changes that lead from what is set up to what is wanted,
// removals first, so that a range that moved is never set up twice.
func Decide(have, want map[netip.Prefix]Peer) []Action {
	var out []Action
	for _, p := range sorted(have) {
		if want[p] != have[p] {
			out = append(out, Action{Remove: true, Peer: have[p]})
		}
	}
	for _, p := range sorted(want) {
		if want[p] != have[p] {
			out = append(out, Action{Peer: want[p]})
		}
	}
	return out
}

func sorted(m map[netip.Prefix]Peer) []netip.Prefix {
	return slices.SortedFunc(maps.Keys(m), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
}

// tunnelMAC is the hardware address of a node's VXLAN link. It follows from the
// node's address, so that no node has to publish one.
func tunnelMAC(node netip.Addr) net.HardwareAddr {
	b := node.As4()
	return net.HardwareAddr{0x0e, 0x53, b[0], b[1], b[2], b[3]}
}

package network

import (
	"net/netip"
	"slices"
)

// Route is how a range is reached: by a gateway, through the tunnel or not.
type Route struct {
	Via    netip.Addr
	Tunnel bool
}

// Facts are the kernel's state towards the other nodes.
type Facts struct {
	Routes     map[netip.Prefix]Route
	Neighbours map[netip.Addr]MAC // of the tunnel: whose address is at which hardware address
	Forwards   map[MAC]netip.Addr // of the tunnel: which node that hardware address is at
}

// Want returns the facts by which peers are reached. direct says which nodes
// need no tunnel; without a tunnel none does.
func Want(peers map[netip.Prefix]Peer, tunnel bool, direct func(netip.Addr) bool) Facts {
	f := Facts{map[netip.Prefix]Route{}, map[netip.Addr]MAC{}, map[MAC]netip.Addr{}}
	for pods, p := range peers {
		if !tunnel || direct(p.Node) {
			f.Routes[pods] = Route{Via: p.Node}
			continue
		}
		f.Routes[pods] = Route{Via: pods.Addr(), Tunnel: true}
		f.Neighbours[pods.Addr()] = p.MAC
		f.Forwards[p.MAC] = p.Node
	}
	return f
}

// Changes lead from one state of facts to another. Neighbours and forwards come
// before the routes that need them and go after.
type Changes struct {
	RoutesGone, RoutesCome         []netip.Prefix
	NeighboursGone, NeighboursCome []netip.Addr
	ForwardsGone, ForwardsCome     []MAC
}

// Empty says that nothing changes.
func (c Changes) Empty() bool {
	return len(c.RoutesGone)+len(c.RoutesCome)+len(c.NeighboursGone)+len(c.NeighboursCome)+len(c.ForwardsGone)+len(c.ForwardsCome) == 0
}

// Decide returns the changes from have to want.
func Decide(have, want Facts) (c Changes) {
	c.RoutesGone, c.RoutesCome = difference(have.Routes, want.Routes, netip.Prefix.Compare)
	c.NeighboursGone, c.NeighboursCome = difference(have.Neighbours, want.Neighbours, netip.Addr.Compare)
	c.ForwardsGone, c.ForwardsCome = difference(have.Forwards, want.Forwards, func(a, b MAC) int { return slices.Compare(a[:], b[:]) })
	return c
}

// difference returns the keys to remove and those to set. One whose value
// changes is only set: it replaces what was there.
func difference[K comparable, V comparable](have, want map[K]V, compare func(a, b K) int) (gone, come []K) {
	for k := range have {
		if _, stays := want[k]; !stays {
			gone = append(gone, k)
		}
	}
	for k, v := range want {
		if old, there := have[k]; !there || old != v {
			come = append(come, k)
		}
	}
	slices.SortFunc(gone, compare)
	slices.SortFunc(come, compare)
	return gone, come
}

package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes, so that those of a life before can be told
// from others'.
const routeProtocol = 0x53

// tunnelName is the overlay's link, named as flannel names it.
func tunnelName(vni int) string { return fmt.Sprintf("flannel.%d", vni) }

// kernel is a backend that the kernel does all by itself: VXLAN or host routes.
type kernel struct {
	site
	tunnel netlink.Link // nil with host routes
}

func (k *kernel) mtu() int { return k.podMTU() }
func (k *kernel) leave()   {}

// follows says whether the tunnel still stands on the link that is there.
func (k *kernel) follows(under netlink.Link) bool {
	if under.Attrs().Index != k.under.Attrs().Index || under.Attrs().MTU != k.under.Attrs().MTU {
		return false
	}
	if k.tunnel == nil {
		return true
	}
	now, err := netlink.LinkByName(k.tunnel.Attrs().Name)
	return err == nil && now.Attrs().Index == k.tunnel.Attrs().Index && now.Attrs().Flags&net.FlagUp != 0
}

// ensureTunnel makes the VXLAN link, or adopts the one of a life before.
func ensureTunnel(s site) (netlink.Link, error) {
	name, mac := tunnelName(s.backend.VNI), tunnelMAC(s.local)
	want := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac[:], MTU: s.podMTU()},
		VxlanId:   s.backend.VNI, VtepDevIndex: s.under.Attrs().Index, SrcAddr: s.local.AsSlice(), Port: s.backend.Port,
		Learning: s.backend.Learning, GBP: s.backend.GBP,
	}
	link, err := netlink.LinkByName(name)
	if err == nil && !sameTunnel(link, want) {
		if err := netlink.LinkDel(link); err != nil {
			return nil, err
		}
		err = netlink.LinkNotFoundError{}
	}
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if err = netlink.LinkAdd(want); err == nil {
			link, err = netlink.LinkByName(name)
		}
	}
	if err != nil {
		return nil, err
	}
	if link.Attrs().MTU != want.MTU {
		if err := netlink.LinkSetMTU(link, want.MTU); err != nil {
			return nil, fmt.Errorf("MTU %d: %w", want.MTU, err)
		}
	}
	if err := onlyAddress(link, netip.PrefixFrom(s.pods.Masked().Addr(), 32)); err != nil {
		return nil, err
	}
	return link, netlink.LinkSetUp(link)
}

// onlyAddress makes prefix the link's one IPv4 address.
func onlyAddress(link netlink.Link, prefix netip.Prefix) error {
	have, err := linkAddresses(link)
	if err != nil {
		return err
	}
	for _, p := range have {
		if p == prefix {
			continue
		}
		if err := netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(prefix)}); err != nil {
		return fmt.Errorf("address %s: %w", prefix, err)
	}
	return nil
}

func sameTunnel(have netlink.Link, want *netlink.Vxlan) bool {
	v, ok := have.(*netlink.Vxlan)
	return ok && v.VxlanId == want.VxlanId && v.VtepDevIndex == want.VtepDevIndex && v.Port == want.Port && v.Learning == want.Learning &&
		v.GBP == want.GBP && v.SrcAddr.Equal(want.SrcAddr) && v.HardwareAddr.String() == want.HardwareAddr.String()
}

// sync compares what the kernel holds with what peers need.
func (k *kernel) sync(peers map[netip.Prefix]Peer) (bool, error) {
	near, err := linkAddresses(k.under)
	if err != nil {
		return false, err
	}
	want := Want(peers, k.tunnel != nil, func(node netip.Addr) bool {
		for _, p := range near {
			if k.backend.DirectRouting && p.Contains(node) {
				return true
			}
		}
		return false
	})
	have, err := k.read()
	if err != nil {
		return false, err
	}
	c := Decide(have, want)
	return !c.Empty(), k.apply(c, have, want)
}

// read returns what the kernel holds of ours.
func (k *kernel) read() (Facts, error) {
	f := Facts{map[netip.Prefix]Route{}, map[netip.Addr]MAC{}, map[MAC]netip.Addr{}}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return f, fmt.Errorf("overlay: routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil {
			via, _ := netip.AddrFromSlice(r.Gw.To4())
			f.Routes[p] = Route{Via: via, Tunnel: k.tunnel != nil && r.LinkIndex == k.tunnel.Attrs().Index}
		}
	}
	if k.tunnel == nil {
		return f, nil
	}
	for family, keep := range map[int]func(netip.Addr, MAC){
		unix.AF_INET:   func(ip netip.Addr, mac MAC) { f.Neighbours[ip] = mac },
		unix.AF_BRIDGE: func(ip netip.Addr, mac MAC) { f.Forwards[mac] = ip },
	} {
		list, err := netlink.NeighList(k.tunnel.Attrs().Index, family)
		if err != nil {
			return f, fmt.Errorf("overlay: neighbours: %w", err)
		}
		for _, n := range list {
			ip, ok := netip.AddrFromSlice(n.IP.To4())
			if ok && n.State&netlink.NUD_PERMANENT != 0 && len(n.HardwareAddr) == 6 {
				keep(ip, MAC(n.HardwareAddr))
			}
		}
	}
	return f, nil
}

// apply makes the changes; one that fails does not keep others from being made.
func (k *kernel) apply(c Changes, have, want Facts) error {
	var errs []error
	try := func(err error, format string, args ...any) {
		if err != nil {
			errs = append(errs, fmt.Errorf(format+": %w", append(args, err)...))
		}
	}
	for _, p := range c.RoutesGone {
		err := netlink.RouteDel(&netlink.Route{Dst: ipNet(p), Protocol: routeProtocol})
		if !errors.Is(err, unix.ESRCH) {
			try(err, "remove route to %s", p)
		}
	}
	for _, ip := range c.NeighboursCome {
		try(netlink.NeighSet(k.neighbour(ip, want.Neighbours[ip])), "neighbour %s", ip)
	}
	for _, mac := range c.ForwardsCome {
		try(netlink.NeighSet(k.forward(mac, want.Forwards[mac])), "forwarding of %s to %s", mac, want.Forwards[mac])
	}
	for _, p := range c.RoutesCome {
		r := want.Routes[p]
		route := &netlink.Route{Dst: ipNet(p), Gw: r.Via.AsSlice(), Protocol: routeProtocol}
		if r.Tunnel {
			route.LinkIndex, route.Flags = k.tunnel.Attrs().Index, int(netlink.FLAG_ONLINK)
		}
		try(netlink.RouteReplace(route), "route to %s by %s", p, r.Via)
	}
	for _, ip := range c.NeighboursGone {
		if err := netlink.NeighDel(k.neighbour(ip, have.Neighbours[ip])); !errors.Is(err, unix.ENOENT) {
			try(err, "remove neighbour %s", ip)
		}
	}
	for _, mac := range c.ForwardsGone {
		if err := netlink.NeighDel(k.forward(mac, have.Forwards[mac])); !errors.Is(err, unix.ENOENT) {
			try(err, "remove forwarding of %s", mac)
		}
	}
	return errors.Join(errs...)
}

// neighbour says at which hardware address a peer's tunnel is.
func (k *kernel) neighbour(ip netip.Addr, mac MAC) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: k.tunnel.Attrs().Index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: ip.AsSlice(), HardwareAddr: mac[:]}
}

// forward says at which node that hardware address is.
func (k *kernel) forward(mac MAC, node netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: k.tunnel.Attrs().Index, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: node.AsSlice(), HardwareAddr: mac[:]}
}

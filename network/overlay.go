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

// overlay is the kernel's state towards the other nodes.
type overlay struct {
	cfg    Config
	tunnel netlink.Link // nil with host-gw
	have   map[netip.Prefix]Peer
}

// nodeLink returns the link that holds the node's address.
func nodeLink(addr netip.Addr) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if a.IP.Equal(net.IP(addr.AsSlice())) {
				return l, nil
			}
		}
	}
	return nil, fmt.Errorf("no link of this machine holds the node's address %s", addr)
}

// openOverlay makes the tunnel and learns which routes a life before left.
func openOverlay(cfg Config, pods netip.Prefix) (*overlay, error) {
	o := &overlay{cfg: cfg, have: map[netip.Prefix]Peer{}}
	if cfg.Backend == VXLAN {
		under, err := nodeLink(cfg.NodeIP)
		if err != nil {
			return nil, err
		}
		if o.tunnel, err = ensureTunnel(cfg, under, pods.Masked().Addr()); err != nil {
			return nil, fmt.Errorf("overlay %s: %w", tunnelName(cfg.VNI), err)
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("overlay: routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, err := netip.ParsePrefix(r.Dst.String()); err == nil {
			// The gateway of a tunnel's route is not the node's address: an entry
			// without one differs from every wanted one and so is laid anew.
			o.have[p] = Peer{Pods: p}
		}
	}
	return o, nil
}

func ensureTunnel(cfg Config, under netlink.Link, addr netip.Addr) (netlink.Link, error) {
	name := tunnelName(cfg.VNI)
	want := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: tunnelMAC(cfg.NodeIP), MTU: under.Attrs().MTU - 50},
		VxlanId:   cfg.VNI, VtepDevIndex: under.Attrs().Index, SrcAddr: cfg.NodeIP.AsSlice(), Port: cfg.Port, Learning: false,
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
	err = netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	if err != nil {
		return nil, err
	}
	return link, netlink.LinkSetUp(link)
}

func sameTunnel(have netlink.Link, want *netlink.Vxlan) bool {
	v, ok := have.(*netlink.Vxlan)
	return ok && v.VxlanId == want.VxlanId && v.VtepDevIndex == want.VtepDevIndex && v.Port == want.Port &&
		v.SrcAddr.Equal(want.SrcAddr) && v.HardwareAddr.String() == want.HardwareAddr.String()
}

// mtu is what is left for pods.
func (o *overlay) mtu() (int, error) {
	if o.cfg.MTU > 0 {
		return o.cfg.MTU, nil
	}
	if o.tunnel != nil {
		return o.tunnel.Attrs().MTU, nil
	}
	l, err := nodeLink(o.cfg.NodeIP)
	if err != nil {
		return 0, err
	}
	return l.Attrs().MTU, nil
}

// sync makes the kernel's state the wanted one.
func (o *overlay) sync(want map[netip.Prefix]Peer) error {
	var errs []error
	for _, a := range Decide(o.have, want) {
		var err error
		if a.Remove {
			if err = o.remove(a.Peer); err == nil {
				delete(o.have, a.Pods)
			}
		} else if err = o.add(a.Peer); err == nil {
			o.have[a.Pods] = a.Peer
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("route to %s by %s: %w", a.Pods, a.Node, err))
		}
	}
	return errors.Join(errs...)
}

func (o *overlay) add(p Peer) error {
	dst := &net.IPNet{IP: p.Pods.Addr().AsSlice(), Mask: net.CIDRMask(p.Pods.Bits(), 32)}
	route := &netlink.Route{Dst: dst, Gw: p.Node.AsSlice(), Protocol: routeProtocol}
	if o.tunnel != nil {
		for _, n := range o.neighbours(p) {
			if err := netlink.NeighSet(n); err != nil {
				return err
			}
		}
		route.Gw, route.LinkIndex, route.Flags = dst.IP, o.tunnel.Attrs().Index, int(netlink.FLAG_ONLINK)
	}
	return netlink.RouteReplace(route)
}

func (o *overlay) remove(p Peer) error {
	dst := &net.IPNet{IP: p.Pods.Addr().AsSlice(), Mask: net.CIDRMask(p.Pods.Bits(), 32)}
	err := netlink.RouteDel(&netlink.Route{Dst: dst, Protocol: routeProtocol})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if o.tunnel != nil && p.Node.IsValid() {
		for _, n := range o.neighbours(p) {
			if err := netlink.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	return nil
}

// neighbours are the two static facts the tunnel needs of a peer: its hardware
// address, and which node that is at.
func (o *overlay) neighbours(p Peer) []*netlink.Neigh {
	index, mac := o.tunnel.Attrs().Index, tunnelMAC(p.Node)
	return []*netlink.Neigh{
		{LinkIndex: index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: p.Pods.Addr().AsSlice(), HardwareAddr: mac},
		{LinkIndex: index, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: p.Node.AsSlice(), HardwareAddr: mac},
	}
}

package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// overlay is one backend at work on this node.
type overlay interface {
	// mtu is what is left for pods.
	mtu() int
	// sync makes the kernel's state the wanted one, whatever it is now, and says
	// whether it was another.
	sync(peers map[netip.Prefix]Peer) (changed bool, err error)
	// follows says whether the backend still stands on what the node is now.
	follows(under netlink.Link) bool
	// leave closes what cannot outlive the process.
	leave()
}

// site is where an overlay stands.
type site struct {
	backend Backend
	under   netlink.Link // the link to other nodes
	local   netip.Addr   // this node's address on it
	network netip.Prefix // all pods
	pods    netip.Prefix // this node's
}

// open makes what the backend needs in the kernel.
func (s site) open() (overlay, error) {
	switch s.backend.Type {
	case UDP:
		return openRelay(s)
	case VXLAN:
		k := &kernel{site: s}
		var err error
		if k.tunnel, err = ensureTunnel(s); err != nil {
			return nil, fmt.Errorf("overlay %s: %w", tunnelName(s.backend.VNI), err)
		}
		return k, nil
	}
	return &kernel{site: s}, nil
}

// podMTU is the configured one, or what the link leaves.
func (s site) podMTU() int {
	if s.backend.MTU > 0 {
		return s.backend.MTU
	}
	return s.under.Attrs().MTU - s.backend.overhead()
}

// ipNet is a prefix as netlink has it.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// nodeLink returns the link that holds the node's address.
func nodeLink(addr netip.Addr) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		addrs, err := linkAddresses(l)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if a.Addr() == addr {
				return l, nil
			}
		}
	}
	return nil, fmt.Errorf("no link of this machine holds the node's address %s", addr)
}

// linkAddresses are a link's IPv4 addresses with their networks.
func linkAddresses(l netlink.Link) ([]netip.Prefix, error) {
	addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			bits, _ := a.Mask.Size()
			out = append(out, netip.PrefixFrom(ip, bits))
		}
	}
	return out, nil
}

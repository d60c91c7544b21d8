package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"

	"github.com/vishvananda/netlink"
)

// Links say which link leads to the other nodes, by flannel's rules: the first
// of Names (a name or an address) that is there, else the first that one of
// Patterns fits, else the one by which CanReach is reached, else the default
// route's.
type Links struct {
	Names    []string
	Patterns []string
	CanReach string
	PublicIP string // what other nodes are told; the link's address if empty
}

// Check says what is wrong with the choice.
func (l Links) Check() error {
	for _, p := range l.Patterns {
		if _, err := regexp.Compile(p); err != nil {
			return fmt.Errorf("iface-regex: %q: %w", p, err)
		}
	}
	for _, a := range []struct{ flag, text string }{{"public-ip", l.PublicIP}, {"iface-can-reach", l.CanReach}} {
		if ip, err := netip.ParseAddr(a.text); a.text != "" && (err != nil || !ip.Is4()) {
			return fmt.Errorf("%s: %q: not an IPv4 address", a.flag, a.text)
		}
	}
	return nil
}

// candidate is a link with its addresses.
type candidate struct {
	index int
	name  string
	addrs []netip.Addr
}

// pick returns the candidate that the choice means, and the address on it; nil
// if it leaves the choice to routes.
func (l Links) pick(all []candidate) (*candidate, netip.Addr, error) {
	for _, name := range l.Names {
		ip, err := netip.ParseAddr(name)
		for i, c := range all {
			for _, a := range c.addrs {
				if err == nil && a == ip || c.name == name {
					return &all[i], a, nil
				}
			}
		}
	}
	for _, text := range l.Patterns {
		re, err := regexp.Compile(text)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		for i, c := range all {
			for _, a := range c.addrs {
				if re.MatchString(a.String()) || re.MatchString(c.name) {
					return &all[i], a, nil
				}
			}
		}
	}
	if len(l.Names)+len(l.Patterns) > 0 {
		return nil, netip.Addr{}, errors.New("failed to find interface to use that matches the interfaces and/or regexes provided")
	}
	return nil, netip.Addr{}, nil
}

// find returns the link and this node's address on it. fallback is the node's
// address as others know it, for machines without a default route.
func (l Links) find(fallback netip.Addr) (netlink.Link, netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, netip.Addr{}, err
	}
	var all []candidate
	for _, k := range links {
		c := candidate{index: k.Attrs().Index, name: k.Attrs().Name}
		prefixes, err := linkAddresses(k)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		for _, p := range prefixes {
			if p.Addr().IsGlobalUnicast() {
				c.addrs = append(c.addrs, p.Addr())
			}
		}
		all = append(all, c)
	}
	c, addr, err := l.pick(all)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	if c == nil {
		if c, addr, err = l.byRoute(all, fallback); err != nil {
			return nil, netip.Addr{}, err
		}
	}
	link, err := netlink.LinkByIndex(c.index)
	return link, addr, err
}

// byRoute is what routes say: towards an address, or the default one.
func (l Links) byRoute(all []candidate, fallback netip.Addr) (*candidate, netip.Addr, error) {
	by := func(index int, src net.IP) (*candidate, netip.Addr, error) {
		for i, c := range all {
			if c.index != index || len(c.addrs) == 0 {
				continue
			}
			if a, ok := netip.AddrFromSlice(src.To4()); ok {
				return &all[i], a, nil
			}
			return &all[i], c.addrs[0], nil
		}
		return nil, netip.Addr{}, fmt.Errorf("failed to find IPv4 address for interface %d", index)
	}
	if l.CanReach != "" {
		routes, err := netlink.RouteGet(net.ParseIP(l.CanReach))
		if err != nil || len(routes) == 0 {
			return nil, netip.Addr{}, fmt.Errorf("failed to get ip route for %s: %w", l.CanReach, err)
		}
		return by(routes[0].LinkIndex, routes[0].Src)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			return by(r.LinkIndex, r.Src)
		}
	}
	public, _ := netip.ParseAddr(l.PublicIP)
	for _, want := range []netip.Addr{public, fallback} {
		for i, c := range all {
			for _, a := range c.addrs {
				if a == want {
					return &all[i], a, nil
				}
			}
		}
	}
	return nil, netip.Addr{}, errors.New("failed to get default interface: unable to find default route; name a link with --iface")
}

// public is the address that other nodes are told.
func (l Links) public(local netip.Addr) netip.Addr {
	if ip, err := netip.ParseAddr(l.PublicIP); err == nil {
		return ip
	}
	return local
}

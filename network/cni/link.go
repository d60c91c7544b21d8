package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostName names the host's end of a container's cable.
func hostName(container, ifname string) string {
	sum := sha256.Sum256([]byte(container + "/" + ifname))
	return "veth" + hex.EncodeToString(sum[:])[:8]
}

// hardwareAddr derives an address from the IP, so that neighbours' caches stay
// right when an IP moves to another container.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// EnsureBridge makes the bridge with its address, or mends it; it is also what
// the node does at start, before any container.
func EnsureBridge(name string, gateway netip.Prefix, mtu int) (netlink.Link, error) {
	link, err := bridgeLink(name, mtu, hardwareAddr(gateway.Addr()))
	if err != nil {
		return nil, err
	}
	if err := setAddress(link, gateway); err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	// Host ports reached as 127.0.0.1 leave by the bridge.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte("1"), 0o644)
	return link, nil
}

// ensureLink makes a bridge without an address.
func ensureLink(name string, mtu int) (netlink.Link, error) { return bridgeLink(name, mtu, nil) }

// bridgeLink makes the bridge, or finds it, and sets it up.
func bridgeLink(name string, mtu int, mac net.HardwareAddr) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, mac
		err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
		if err == nil || errors.Is(err, unix.EEXIST) {
			link, err = netlink.LinkByName(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return nil, fmt.Errorf("bridge %s: there is a %s of that name", name, link.Type())
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bridge %s: up: %w", name, err)
	}
	return link, nil
}

// setAddress makes prefix the link's only IPv4 address.
func setAddress(link netlink.Link, prefix netip.Prefix) error {
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	found := false
	for _, a := range have {
		if a.IPNet.String() == ipNet(prefix).String() {
			found = true
		} else if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	if found {
		return nil
	}
	err = netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix)})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", prefix, err)
	}
	return nil
}

// cable is one container's connection to the bridge.
type cable struct {
	MTU     int
	Hairpin bool
	Address netip.Prefix
	Gateway netip.Addr // of the routes that name none
	Default bool       // a route to everywhere by Gateway
	Routes  []*types.Route
}

// connect lays a cable from the bridge into the namespace at nsPath.
func connect(c cable, bridge netlink.Link, nsPath, ifname, host string) error {
	ns, err := os.Open(nsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = host, c.MTU, bridge.Attrs().Index
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: ifname, PeerMTU: uint32(c.MTU),
		PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if c.Address.IsValid() {
		veth.PeerHardwareAddr = hardwareAddr(c.Address.Addr())
	}
	if old, err := netlink.LinkByName(host); err == nil { // left by an ADD that died
		_ = netlink.LinkDel(old)
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s: %w", host, err)
	}
	link, err := netlink.LinkByName(host)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetHairpin(link, c.Hairpin); err != nil {
		return fmt.Errorf("veth %s: hairpin: %w", host, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("veth %s: up: %w", host, err)
	}
	return inNamespace(ns, func() error { return configure(c, ifname) })
}

// configure gives the container's end its address and routes; it runs in the
// container's namespace.
func configure(c cable, ifname string) error {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	link, err := netlink.LinkByName(ifname)
	if err != nil {
		return err
	}
	if c.Address.IsValid() {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(c.Address)}); err != nil {
			return fmt.Errorf("%s: address %s: %w", ifname, c.Address, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: up: %w", ifname, err)
	}
	routes := c.Routes
	if c.Default {
		routes = append([]*types.Route{{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}}, routes...)
	}
	for _, r := range routes {
		gw := r.GW
		if gw == nil && c.Gateway.IsValid() {
			gw = c.Gateway.AsSlice()
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw, Dst: &r.Dst, MTU: r.MTU}
		if ones, _ := r.Dst.Mask.Size(); ones == 0 {
			route.Dst = nil
		}
		if err := netlink.RouteAdd(route); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: route to %s by %s: %w", ifname, r.Dst.String(), gw, err)
		}
	}
	return nil
}

// disconnect removes the cable; a namespace that is gone took it along.
func disconnect(host string) error {
	link, err := netlink.LinkByName(host)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// inNamespace runs fn with the calling thread in the network namespace ns.
func inNamespace(ns *os.File, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", ns.Name(), err)
	}
	fnErr := fn()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(fnErr, err) // the thread stays locked and dies with the process
	}
	runtime.UnlockOSThread()
	return fnErr
}

// exists says whether there is a link of that name.
func exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// gone says that what should be removed was not there.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) }

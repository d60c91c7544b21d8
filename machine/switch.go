package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const bridgeName = "switch0"

// Switch is an Ethernet switch in a network namespace of its own, without an
// uplink: what its machines send elsewhere ends here.
type Switch struct {
	Cluster string
	Subnet  netip.Prefix
}

func (s Switch) name() string { return "sampan-" + s.Cluster }

// Ensure makes the switch unless it is there.
func (s Switch) Ensure() error {
	if isNetNS(s.name()) {
		return nil
	}
	if err := deleteNetNS(s.name()); err != nil { // a leftover file
		return err
	}
	if err := createNetNS(s.name()); err != nil {
		return err
	}
	if err := inNetNS(s.name(), s.build); err != nil {
		return errors.Join(fmt.Errorf("make switch of %s: %w", s.Cluster, err), s.Delete())
	}
	return nil
}

func (s Switch) build() error {
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := up(h, "lo"); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	if err := address(h, bridgeName, netip.PrefixFrom(gateway(s.Subnet), s.Subnet.Bits())); err != nil {
		return err
	}
	// As a router without routes the switch answers "unreachable" at once,
	// where it would otherwise let every sender wait for a timeout.
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// Delete removes the switch and with it every port.
func (s Switch) Delete() error { return deleteNetNS(s.name()) }

// plug joins a machine's network namespace to the switch by a cable whose ends
// are eth0 there and a port here.
func (s Switch) plug(machine string, at netip.Prefix) error {
	port := portName(at.Addr())
	node, err := os.Open(netnsPath(machine))
	if err != nil {
		return err
	}
	defer node.Close()
	err = inNetNS(s.name(), func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		if old, err := h.LinkByName(port); err == nil {
			if err := h.LinkDel(old); err != nil {
				return err
			}
		}
		bridge, err := h.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(node.Fd())}
		if err := h.LinkAdd(veth); err != nil {
			return err
		}
		return up(h, port)
	})
	if err != nil {
		return fmt.Errorf("plug %s into the switch: %w", machine, err)
	}
	return inNetNS(machine, func() error { return s.configure(at) })
}

// configure sets the machine's end up.
func (s Switch) configure(at netip.Prefix) error {
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := up(h, "lo"); err != nil {
		return err
	}
	if err := address(h, "eth0", at); err != nil {
		return err
	}
	// A host's own packet to a service address needs a route before the rules
	// that translate it are asked; this one leads nowhere else.
	return h.RouteAdd(&netlink.Route{Gw: net.IP(gateway(at).AsSlice())})
}

// unplug removes a machine's port; it is no error if it is gone.
func (s Switch) unplug(at netip.Addr) error {
	if !isNetNS(s.name()) {
		return nil
	}
	return inNetNS(s.name(), func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		port, err := h.LinkByName(portName(at))
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := h.LinkDel(port); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
		return nil
	})
}

// portName fits the kernel's 15 characters whatever the machine is called.
func portName(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("p%d.%d", b[2], b[3])
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return h.LinkSetUp(link)
}

func address(h *netlink.Handle, name string, p netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	ipnet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipnet}); err != nil {
		return fmt.Errorf("link %s: address %s: %w", name, p, err)
	}
	return h.LinkSetUp(link)
}

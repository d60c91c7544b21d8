package machine

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CutOff pulls the machine's cable out of the switch: it lives on and reaches
// nobody. A machine that boots has its cable in.
func (m *Machine) CutOff() error {
	return m.cable("cut off", func(h *netlink.Handle, port netlink.Link) error { return h.LinkSetDown(port) })
}

// Reconnect puts the cable in again; it is no error if it is.
func (m *Machine) Reconnect() error {
	return m.cable("reconnect", func(h *netlink.Handle, port netlink.Link) error { return h.LinkSetUp(port) })
}

// Narrow lets the cable carry no packets larger than so many bytes; neither the
// machine nor who sends to it is told.
func (m *Machine) Narrow(mtu int) error {
	return m.cable("narrow", func(h *netlink.Handle, port netlink.Link) error { return h.LinkSetMTU(port, mtu) })
}

// Slow lets no more than bytesPerSecond through the machine's cable, in each
// direction; what is too much waits in line, so that a packet is late by what is
// before it. 0 is as fast as before. Delay alone is not to be had: kernels that
// lack netem have a token bucket at most.
func (m *Machine) Slow(bytesPerSecond uint64) error {
	shape := func(h *netlink.Handle, link netlink.Link) error {
		attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}
		if bytesPerSecond == 0 {
			// ENOENT and EINVAL are the kernels' ways to say that there is none.
			if err := h.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs}); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
				return err
			}
			return nil
		}
		const burst = 64 << 10 // a segment as large as offloading makes them must fit
		return h.QdiscReplace(&netlink.Tbf{QdiscAttrs: attrs, Rate: bytesPerSecond, Buffer: uint32(netlink.Xmittime(bytesPerSecond, burst)), Limit: 1 << 20})
	}
	if err := m.cable("slow down", shape); err != nil {
		return err
	}
	err := inNetNS(m.id(), func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		link, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return shape(h, link)
	})
	if err != nil {
		return fmt.Errorf("slow down machine %s: %w", m.Spec.Name, err)
	}
	return nil
}

// cable does something to the machine's port on the switch.
func (m *Machine) cable(what string, do func(*netlink.Handle, netlink.Link) error) error {
	sw := Switch{Cluster: m.Spec.Cluster, Subnet: m.Spec.Address.Masked()}
	err := inNetNS(sw.name(), func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		port, err := h.LinkByName(portName(m.Spec.Address.Addr()))
		if err != nil {
			return err
		}
		return do(h, port)
	})
	if err != nil {
		return fmt.Errorf("%s machine %s: %w", what, m.Spec.Name, err)
	}
	return nil
}

package machine

import (
	"fmt"

	"github.com/vishvananda/netlink"
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

package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// wire is a machine's way to the others, and its interface.
type wire struct {
	cfg   *Config
	iface *net.Interface
	conn  *ipv4.PacketConn
	h     *netlink.Handle
	link  netlink.Link
}

// openWire joins the others on an interface.
func openWire(cfg *Config) (*wire, error) {
	w := &wire{cfg: cfg}
	var err error
	if w.iface, err = interfaceOf(cfg); err != nil {
		return nil, err
	}
	raw, err := net.ListenPacket("ip4:112", "0.0.0.0")
	if err != nil {
		return nil, fmt.Errorf("listen for VRRP: %w", err)
	}
	w.conn = ipv4.NewPacketConn(raw)
	err = errors.Join(w.conn.SetControlMessage(ipv4.FlagTTL|ipv4.FlagSrc|ipv4.FlagDst|ipv4.FlagInterface, true),
		w.conn.SetTTL(ttl), w.conn.SetMulticastTTL(ttl), w.conn.SetMulticastLoopback(false), w.conn.SetMulticastInterface(w.iface))
	if len(cfg.Peers) == 0 {
		err = errors.Join(err, w.conn.JoinGroup(w.iface, &net.IPAddr{IP: group.AsSlice()}))
	}
	if err == nil {
		w.h, err = netlink.NewHandle()
	}
	if err == nil {
		w.link, err = w.h.LinkByIndex(w.iface.Index)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("VRRP on %s: %w", w.iface.Name, err)
	}
	return w, nil
}

// interfaceOf finds the interface that was named, or that has this machine's address.
func interfaceOf(cfg *Config) (*net.Interface, error) {
	if cfg.Interface != "" {
		i, err := net.InterfaceByName(cfg.Interface)
		if err != nil {
			return nil, fmt.Errorf("--vip: interface %s: %w", cfg.Interface, err)
		}
		return i, nil
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for i := range all {
		addrs, err := all[i].Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == cfg.Self {
				return &all[i], nil
			}
		}
	}
	return nil, fmt.Errorf("--vip: no interface has this machine's address %s; name one: --vip %s@INTERFACE", cfg.Self, cfg.Address)
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
	}
	if w.h != nil {
		w.h.Close()
	}
}

// send tells the others.
func (w *wire) send(a Advert) error {
	to := w.cfg.Peers
	if len(to) == 0 {
		to = []netip.Addr{group}
	}
	cm := &ipv4.ControlMessage{Src: w.cfg.Self.AsSlice(), IfIndex: w.iface.Index}
	var errs []error
	for _, dst := range to {
		_, err := w.conn.WriteTo(a.Encode(w.cfg.Self, dst), cm, &net.IPAddr{IP: dst.AsSlice()})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// errFar is of packets that are not from this network.
var errFar = errors.New("it came through a router, or another interface")

// receive waits for a packet. Its error is of the packet unless it is net.ErrClosed's kind.
func (w *wire) receive() (a Advert, from netip.Addr, err error) {
	buf := make([]byte, 1500)
	n, cm, src, err := w.conn.ReadFrom(buf)
	if err != nil {
		return a, from, fmt.Errorf("%w: %w", net.ErrClosed, err)
	}
	from, _ = netip.AddrFromSlice(src.(*net.IPAddr).IP.To4())
	if cm == nil || cm.TTL != ttl || cm.IfIndex != w.iface.Index {
		return a, from, errFar
	}
	dst, _ := netip.AddrFromSlice(cm.Dst.To4())
	a, err = Decode(buf[:n], from, dst)
	return a, from, err
}

// lifetime is how long, in seconds, the kernel keeps the address of a process
// that no longer refreshes it.
const lifetime = 3

// take puts the address on, or keeps it there.
func (w *wire) take() error {
	err := w.h.AddrReplace(w.link, w.addr(max(lifetime, 3*int(w.cfg.Interval.Seconds())+1)))
	if err != nil {
		return fmt.Errorf("put %s on %s: %w", w.cfg.Address, w.iface.Name, err)
	}
	return nil
}

// drop takes the address off; it is no error if it is not there.
func (w *wire) drop() error {
	err := w.h.AddrDel(w.link, w.addr(0))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take %s off %s: %w", w.cfg.Address, w.iface.Name, err)
	}
	return nil
}

func (w *wire) addr(seconds int) *netlink.Addr {
	p := w.cfg.Address
	return &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}, ValidLft: seconds, PreferedLft: seconds}
}

// greet tells all neighbours which machine has the address, as a question and as
// an answer, since some heed only one of them.
func (w *wire) greet() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x06}), Ifindex: w.iface.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for _, op := range []uint16{1, 2} {
		if err := unix.Sendto(fd, arp(op, w.iface.HardwareAddr, w.cfg.Address.Addr()), 0, to); err != nil {
			return os.NewSyscallError("send gratuitous ARP", err)
		}
	}
	return nil
}

// arp is a gratuitous ARP packet, of the Ethernet header on.
func arp(op uint16, mac net.HardwareAddr, addr netip.Addr) []byte {
	broadcast := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	b := append(append([]byte{}, broadcast...), mac...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, mac...), addr.AsSlice()...)
	return append(append(b, broadcast...), addr.AsSlice()...)
}

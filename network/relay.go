package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/run"
)

// relayLink is the link by which the kernel hands packets to the relay, named
// as flannel names it.
const relayLink = "flannel0"

// relay is the backend udp: packets to other nodes' pods come out of a link of
// ours and travel as the contents of UDP datagrams, carried by this process.
type relay struct {
	site
	tun   *os.File
	conn  *net.UDPConn
	table atomic.Pointer[table]
	// broken is set when packets are no longer carried.
	broken atomic.Bool
}

// table says which node a packet goes to.
type table struct {
	bits  []int // the lengths of the ranges, longest first
	nodes map[netip.Prefix]netip.AddrPort
}

func newTable(peers map[netip.Prefix]Peer, port int) *table {
	t := &table{nodes: map[netip.Prefix]netip.AddrPort{}}
	for pods, p := range peers {
		t.nodes[pods] = netip.AddrPortFrom(p.Node, uint16(port))
	}
	for bits := 32; bits >= 0; bits-- {
		for pods := range peers {
			if pods.Bits() == bits {
				t.bits = append(t.bits, bits)
				break
			}
		}
	}
	return t
}

// find returns the node whose pods the address is among.
func (t *table) find(dst netip.Addr) (netip.AddrPort, bool) {
	for _, bits := range t.bits {
		if to, ok := t.nodes[netip.PrefixFrom(dst, bits).Masked()]; ok {
			return to, true
		}
	}
	return netip.AddrPort{}, false
}

// same says that two tables lead to the same nodes.
func (t *table) same(o *table) bool {
	if t == nil || len(t.nodes) != len(o.nodes) {
		return false
	}
	for pods, to := range t.nodes {
		if o.nodes[pods] != to {
			return false
		}
	}
	return true
}

func openRelay(s site) (*relay, error) {
	r := &relay{site: s}
	r.table.Store(newTable(nil, s.backend.Port))
	var err error
	if r.tun, err = openTUN(relayLink); err != nil {
		return nil, fmt.Errorf("overlay %s: %w", relayLink, err)
	}
	if err := r.configure(); err != nil {
		r.tun.Close()
		return nil, fmt.Errorf("overlay %s: %w", relayLink, err)
	}
	if r.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.local, uint16(s.backend.Port)))); err != nil {
		r.tun.Close()
		return nil, fmt.Errorf("overlay: %w", err)
	}
	r.start()
	return r, nil
}

// openTUN makes the link, which lasts as long as the file is open.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("failed to open TUN device: /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("failed to open TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// configure gives the link its address and, by the address's network, the route
// to all pods.
func (r *relay) configure() error {
	link, err := netlink.LinkByName(relayLink)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, r.podMTU()); err != nil {
		return fmt.Errorf("MTU %d: %w", r.podMTU(), err)
	}
	if err := onlyAddress(link, netip.PrefixFrom(r.pods.Masked().Addr(), r.network.Bits())); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func (r *relay) mtu() int { return r.podMTU() }

func (r *relay) follows(under netlink.Link) bool {
	if under.Attrs().Index != r.under.Attrs().Index || under.Attrs().MTU != r.under.Attrs().MTU || r.broken.Load() {
		return false
	}
	now, err := netlink.LinkByName(relayLink)
	return err == nil && now.Attrs().Flags&net.FlagUp != 0
}

// start carries packets in both directions until leave.
func (r *relay) start() {
	for name, carry := range map[string]func() error{"overlay-out": r.out, "overlay-in": r.in} {
		run.Detach(context.Background(), name, func(context.Context) {
			err := carry()
			r.broken.Store(true)
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
				slog.Error("network: relay: carries no more packets; it is made again", "err", err)
			}
		})
	}
}

func (r *relay) leave() {
	r.tun.Close()
	r.conn.Close()
}

func (r *relay) sync(peers map[netip.Prefix]Peer) (bool, error) {
	next := newTable(peers, r.backend.Port)
	changed := !r.table.Load().same(next)
	r.table.Store(next)
	return changed, nil
}

// out takes packets from the kernel and sends them to their nodes.
func (r *relay) out() error {
	buf := make([]byte, 1<<16)
	for {
		n, err := r.tun.Read(buf)
		if err != nil {
			return err
		}
		packet := buf[:n]
		dst, ok := age(packet)
		if !ok {
			continue
		}
		to, ok := r.table.Load().find(dst)
		if !ok {
			if answer := unreachable(packet); answer != nil {
				_, _ = r.tun.Write(answer) // a caller that is not told only waits longer
			}
			continue
		}
		if _, err := r.conn.WriteToUDPAddrPort(packet, to); err != nil && errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

// in takes datagrams of other nodes and gives the packets in them to the kernel.
func (r *relay) in() error {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := r.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			continue // what a node answered that has no relay
		}
		if dst, ok := age(buf[:n]); !ok || !r.network.Contains(dst) {
			continue
		}
		if _, err := r.tun.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return err
		} else if err != nil {
			slog.Debug("network: relay: packet not taken", "err", err)
		}
	}
}

// age counts a packet's hop, as a router does, and returns where it goes; one
// that is no IPv4 packet or too old goes nowhere.
func age(packet []byte) (netip.Addr, bool) {
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[8] <= 1 {
		return netip.Addr{}, false
	}
	packet[8]--
	// The checksum is a sum of words with carries: taking 256 from one word adds
	// 256 to the sum's complement.
	sum := uint32(binary.BigEndian.Uint16(packet[10:])) + 0x100
	binary.BigEndian.PutUint16(packet[10:], uint16(sum+sum>>16))
	return netip.AddrFrom4([4]byte(packet[16:20])), true
}

// unreachable is the answer to a packet whose range no node has. It comes from
// where the packet went: from an address of this node the kernel would not take it.
func unreachable(packet []byte) []byte {
	head := int(packet[0]&0xf) * 4
	if head < 20 || len(packet) < head+8 || packet[9] == unix.IPPROTO_ICMP {
		return nil // answers to ICMP could go on for ever
	}
	out := make([]byte, 28+head+8)
	out[0], out[8], out[9] = 0x45, 64, unix.IPPROTO_ICMP
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	copy(out[12:], packet[16:20])
	copy(out[16:], packet[12:16])
	binary.BigEndian.PutUint16(out[10:], checksum(out[:20]))
	out[20] = 3 // destination unreachable; code 0: the network
	copy(out[28:], packet[:head+8])
	binary.BigEndian.PutUint16(out[22:], checksum(out[20:]))
	return out
}

// checksum is the Internet's.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

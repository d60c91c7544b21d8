package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// probePort is the UDP port at which nodes answer each other's tests.
const probePort = 8474

// probeText begins a test's packets; nothing else is answered.
var probeText = []byte("sampan-overlay-test")

// Bounds of a test.
const (
	probeTries   = 3
	probeTimeout = time.Second
	probeWorkers = 16
	settling     = 2 * time.Second // other nodes learn of a change about when we do
)

// prober tests whether this node reaches the others' pods.
type prober struct {
	log     *slog.Logger
	metrics *metrics
	// tell is told each verdict; repaired that the offload was switched off.
	tell     func(context.Context, scene, []finding)
	repaired func(link string, about Peer)

	wake waker
	mu   sync.Mutex
	now  scene
}

// see takes what is to be tested; a change is tested soon.
func (p *prober) see(s scene) {
	p.mu.Lock()
	same := p.now.same(s)
	p.now = s
	p.mu.Unlock()
	if !same {
		p.wake.ring()
	}
}

// run tests after every change and now and then, until ctx ends.
func (p *prober) run(ctx context.Context) error {
	run.Detach(ctx, "overlay-answers", p.answer)
	repairs := 0
	for tests, well, wait := 0, true, time.Duration(-1); ; {
		woken, err := p.pause(ctx, wait)
		if err != nil {
			return err
		}
		if woken {
			tests, wait = 0, settling
			continue
		}
		p.mu.Lock()
		s := p.now
		p.mu.Unlock()
		all := p.test(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.spoiled(all) && repairs == 0 {
			repairs++
			if err := p.repair(s, all); err != nil {
				p.log.Error("network: checksum offload", "err", err)
			}
			wait = settling
			continue
		}
		p.tell(ctx, s, all)
		reason, _ := judge(all)
		if is := reason == reasonReached; is != well {
			well, tests = is, 0
		}
		tests++
		wait = clock.Jitter(pauses(well, tests), 0.1)
	}
}

// pause waits, if wait is negative for a change only, and says whether one came.
func (p *prober) pause(ctx context.Context, wait time.Duration) (woken bool, err error) {
	var due <-chan time.Time
	if wait >= 0 {
		t := clock.NewTimer(wait)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-p.wake:
		return true, nil
	case <-due:
		return false, nil
	}
}

// repair switches off the offload of the tunnel.
func (p *prober) repair(s scene, all []finding) error {
	link := tunnelName(s.backend.VNI)
	if err := checksumOff(link); err != nil {
		return fmt.Errorf("%s: %w", link, err)
	}
	_, about := judge(all)
	p.log.Warn("network: packets arrived with spoiled checksums, the link's offload is switched off", "link", link, "node", about[0].peer.Name)
	p.metrics.repairs.Inc()
	p.repaired(link, about[0].peer)
	return nil
}

// checksumOff is what `ethtool -K LINK tx off` does.
func checksumOff(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	var req struct { // struct ifreq: a name and a pointer
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], link)
	req.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return fmt.Errorf("switch off checksum offload: %w", errno)
	}
	return nil
}

// test asks all peers, some at a time.
func (p *prober) test(ctx context.Context, s scene) []finding {
	peers := make(chan Peer)
	var all []finding
	var mu sync.Mutex
	var done sync.WaitGroup
	for range min(probeWorkers, len(s.peers)) {
		done.Add(1)
		run.Detach(ctx, "overlay-test", func(ctx context.Context) {
			defer done.Done()
			for peer := range peers {
				f := probe(ctx, s, peer)
				p.metrics.found(f)
				mu.Lock()
				all = append(all, f)
				mu.Unlock()
			}
		})
	}
	for _, peer := range s.peers {
		peers <- peer
	}
	close(peers)
	done.Wait()
	return all
}

// probe tests one peer: its bridge, or before it has one its end of the overlay.
func probe(ctx context.Context, s scene, peer Peer) finding {
	f := finding{peer: peer, small: lost}
	for range probeTries {
		for _, target := range []netip.Addr{peer.Pods.Addr().Next(), peer.Pods.Addr()} {
			start := clock.Now()
			got, err := ping(ctx, target, peer.Node, 56)
			if err != nil { // nothing that the peer is to blame for
				slog.Debug("network: test", "node", peer.Name, "err", err)
			}
			switch got {
			case unreachableThere:
				f.small = arrived // the overlay carried it; there are no pods yet
			case answered:
				f.small, f.took = arrived, clock.Since(start)
				f.large, f.sum = again3(func() echo {
					if got, _ := ping(ctx, target, peer.Node, s.podMTU()-28); got == answered {
						return arrived
					}
					return lost
				}), again3(func() echo { return ask(ctx, target) })
				return f
			}
		}
		if f.small == arrived || ctx.Err() != nil {
			return f
		}
	}
	return f
}

// again3 tries until something arrives: a packet may be lost by chance.
func again3(try func() echo) (e echo) {
	for range probeTries {
		if e = try(); e != lost {
			return e
		}
	}
	return e
}

// reply is what came back.
type reply int

const (
	nothing reply = iota
	answered
	unreachableThere // the peer itself says that it knows no such address
)

// ping sends an echo request of size bytes that must not be taken apart.
func ping(ctx context.Context, to, node netip.Addr, size int) (reply, error) {
	conn, err := (&net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		})
		return errors.Join(err, failed)
	}}).ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return nothing, err
	}
	defer conn.Close()
	id := uint32(clock.Seed())
	packet := make([]byte, 8+size)
	packet[0] = 8
	binary.BigEndian.PutUint32(packet[4:], id)
	copy(packet[8:], probeText)
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	if err := conn.SetDeadline(clock.Now().Add(probeTimeout)); err != nil {
		return nothing, err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return nothing, err
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return nothing, nil //nolint:nilerr // no answer in time is an outcome
		}
		if got := readReply(buf[:n], id, to, node, from); got != nothing {
			return got, nil
		}
	}
}

// readReply says whether a message answers the request with that id.
func readReply(m []byte, id uint32, to, node netip.Addr, from net.Addr) reply {
	ip, ok := from.(*net.IPAddr)
	if !ok || len(m) < 8 {
		return nothing
	}
	src, _ := netip.AddrFromSlice(ip.IP.To4())
	switch {
	case m[0] == 0 && src == to && binary.BigEndian.Uint32(m[4:]) == id:
		return answered
	case m[0] == 3 && m[1] != 4 && src == node && len(m) >= 36 && bytes.Equal(m[24:28], to.AsSlice()) && binary.BigEndian.Uint32(m[32:]) == id:
		return unreachableThere
	}
	return nothing
}

// ask has a datagram sent back, whose checksum the tunnel's link computes. A node
// that does not answer such is not to be blamed.
func ask(ctx context.Context, to netip.Addr) echo {
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "udp4", netip.AddrPortFrom(to, probePort).String())
	if err != nil {
		return unknown
	}
	defer conn.Close()
	text := append(bytes.Clone(probeText), fmt.Sprint(clock.Seed())...)
	if conn.SetDeadline(clock.Now().Add(probeTimeout)) != nil {
		return unknown
	}
	if _, err := conn.Write(text); err != nil {
		return unknown
	}
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	switch {
	case err == nil && bytes.Equal(buf[:n], text):
		return arrived
	case errors.Is(err, unix.ECONNREFUSED):
		return unknown
	}
	return lost
}

// answer sends other nodes' datagrams back, to whoever is in the overlay.
func (p *prober) answer(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", probePort))
		if err != nil {
			p.log.Debug("network: tests of other nodes are not answered", "err", err)
			if clock.Sleep(ctx, time.Minute) != nil {
				return
			}
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		p.answers(conn)
		stop()
		conn.Close()
	}
}

// answers come from the address that was asked, which is not the one that the
// kernel would choose.
func (p *prober) answers(conn net.PacketConn) {
	c := ipv4.NewPacketConn(conn)
	if err := c.SetControlMessage(ipv4.FlagDst, true); err != nil {
		p.log.Debug("network: tests of other nodes are not answered", "err", err)
		return
	}
	buf := make([]byte, 256)
	for {
		n, asked, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if at, ok := from.(*net.UDPAddr); ok && asked != nil && bytes.HasPrefix(buf[:n], probeText) && p.known(at.AddrPort().Addr().Unmap()) {
			_, _ = c.WriteTo(buf[:n], &ipv4.ControlMessage{Src: asked.Dst}, from) // who asked asks again
		}
	}
}

// known says whether an address is one of the overlay's.
func (p *prober) known(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now.network.IsValid() && p.now.network.Contains(a) {
		return true
	}
	for _, peer := range p.now.peers {
		if peer.Node == a {
			return true
		}
	}
	return false
}

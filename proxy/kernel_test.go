package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// world is a network namespace of the test's own, without links but its
// loopback, whose addresses stand for endpoints.
func world(t *testing.T, addrs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs the right to make network namespaces: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(32, 32)}}); err != nil {
			t.Fatal(err)
		}
	}
	_, services, _ := net.ParseCIDR("10.96.0.0/12")
	if err := netlink.RouteAdd(&netlink.Route{Dst: services, LinkIndex: lo.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
}

// serve answers connections at addr with the address itself. Sockets belong to
// the namespace they were made in, so other threads may accept.
func serve(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, addr)
			c.Close()
		}
	}()
}

// ask connects by a socket made on this thread and returns the answer.
func ask(addr string) (string, error) {
	ap := netip.MustParseAddrPort(addr)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), addr)
	defer f.Close()
	tv := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}); err != nil {
		return "", err
	}
	b, err := io.ReadAll(f)
	return string(b), err
}

// lay programs services as Run would.
func lay(t *testing.T, p *Proxy, services map[string]Rules) {
	t.Helper()
	c := newChange()
	for key, r := range services {
		p.state.set(key, r, c)
	}
	if err := p.kernel.apply(c); err != nil {
		t.Fatal(err)
	}
	if err := p.kernel.forget(p.departed(c)); err != nil {
		t.Fatal(err)
	}
}

func newKernel(t *testing.T) *Proxy {
	t.Helper()
	cfg := Config{NodeName: "here", ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16")}
	k, err := openTable(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return &Proxy{cfg: cfg, kernel: k, state: newState(), deps: Deps{Log: slog.New(slog.DiscardHandler)}}
}

func TestKernelBalancesRefusesAndSticks(t *testing.T) {
	world(t, "10.244.0.2", "10.244.0.3")
	serve(t, "10.244.0.2:8080")
	serve(t, "10.244.0.3:8080")
	p := newKernel(t)
	both := []*discoveryv1.EndpointSlice{sliceOf(8080, "10.244.0.2", "10.244.0.3")}
	node := func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	}
	lay(t, p, map[string]Rules{"web": Compile(serviceOf(node), both, "here")})

	for _, addr := range []string{"10.96.0.10:80", "127.0.0.1:30080"} {
		seen := map[string]int{}
		for range 64 {
			got, err := ask(addr)
			if err != nil {
				t.Fatalf("%s: %v", addr, err)
			}
			seen[got]++
		}
		if len(seen) != 2 {
			t.Errorf("%s: 64 connections reached only %v", addr, seen)
		}
	}

	lay(t, p, map[string]Rules{"web": Compile(serviceOf(node), nil, "here")})
	for _, addr := range []string{"10.96.0.10:80", "127.0.0.1:30080"} {
		if _, err := ask(addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s without endpoints: %v, want connection refused", addr, err)
		}
	}

	sticky := func(s *corev1.Service) { node(s); s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
	lay(t, p, map[string]Rules{"web": Compile(serviceOf(sticky), both, "here")})
	first, err := ask("10.96.0.10:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 32 {
		if got, err := ask("10.96.0.10:80"); got != first || err != nil {
			t.Fatalf("a sticky client moved from %s to %s (%v)", first, got, err)
		}
	}
	left := map[string]string{"10.244.0.2:8080": "10.244.0.3", "10.244.0.3:8080": "10.244.0.2"}[first]
	lay(t, p, map[string]Rules{"web": Compile(serviceOf(sticky), []*discoveryv1.EndpointSlice{sliceOf(8080, left)}, "here")})
	if got, err := ask("10.96.0.10:80"); err != nil || got != left+":8080" {
		t.Errorf("after its endpoint left, a sticky client got %q, %v", got, err)
	}
	lay(t, p, map[string]Rules{"web": nil})
	if _, err := ask("127.0.0.1:30080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the service left, its node port gave %v", err)
	}
}

// neighbour is another network namespace at the end of a cable, with the address
// 10.244.1.5, of which this one is 10.244.1.1; do runs what is to happen there.
func neighbour(t *testing.T) (do func(func())) {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	work, done, threads := make(chan func()), make(chan bool), make(chan int)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		threads <- unix.Gettid()
		for fn := range work {
			fn()
			done <- true
		}
	}()
	t.Cleanup(func() { close(work) })
	there, err := netns.GetFromThread(os.Getpid(), <-threads)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far", PeerNamespace: netlink.NsFd(there)}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	do = func(fn func()) { work <- fn; <-done }
	up := func(name, addr string) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Error(err)
			return
		}
		at, _ := netlink.ParseAddr(addr)
		if err := errors.Join(netlink.AddrAdd(link, at), netlink.LinkSetUp(link)); err != nil {
			t.Error(err)
		}
	}
	up("near", "10.244.1.1/24")
	do(func() { up("far", "10.244.1.5/24") })
	return do
}

// A node port asked at 127.0.0.1 reaches an endpoint on another node, and what
// listens on loopback alone is not reached from there.
func TestLoopbackReachesNodePortsElsewhereAndNobodyReachesLoopback(t *testing.T) {
	world(t)
	do := neighbour(t)
	do(func() { serve(t, "10.244.1.5:8080") })
	p := newKernel(t)
	node := func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	}
	lay(t, p, map[string]Rules{"web": Compile(serviceOf(node), []*discoveryv1.EndpointSlice{sliceOf(8080, "10.244.1.5")}, "here")})
	if err := routeLoopback(); err != nil {
		t.Skipf("needs a writable /proc/sys: %v", err)
	}
	if got, err := ask("127.0.0.1:30080"); got != "10.244.1.5:8080" {
		t.Errorf("node port at 127.0.0.1: %q, %v", got, err)
	}
	serve(t, "127.0.0.9:9090")
	if got, err := ask("127.0.0.9:9090"); got != "127.0.0.9:9090" {
		t.Fatalf("loopback to itself: %q, %v", got, err)
	}
	do(func() { // its own loopback is down, so 127.0.0.9 is an address like others
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0o644); err != nil {
			t.Error(err)
		}
		_, lo, _ := net.ParseCIDR("127.0.0.9/32")
		if err := netlink.RouteAdd(&netlink.Route{Dst: lo, Gw: net.ParseIP("10.244.1.1")}); err != nil {
			t.Error(err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval((300 * time.Millisecond).Nanoseconds())
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9090, Addr: [4]byte{127, 0, 0, 9}}); !errors.Is(err, unix.EINPROGRESS) {
			t.Errorf("a neighbour spoke to loopback, or was answered: %v", err)
		}
	})
}

func BenchmarkTenThousandServices(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Skip(err)
	}
	many := map[string]Rules{}
	for i := range 10000 {
		ip := fmt.Sprintf("10.%d.%d.%d", 96+i/65536, i/256%256, i%256)
		eps := []*discoveryv1.EndpointSlice{sliceOf(8080, fmt.Sprintf("10.244.%d.%d", i/250, i%250+2), fmt.Sprintf("10.245.%d.%d", i/250, i%250+2))}
		many[fmt.Sprint("web-", i)] = Compile(serviceOf(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = ip, nil }), eps, "here")
	}
	for b.Loop() {
		k, err := openTable(Config{NodeName: "here", ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16")})
		if err != nil {
			b.Fatal(err)
		}
		s, c := newState(), newChange()
		for key, r := range many {
			s.set(key, r, c)
		}
		if err := k.apply(c); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		one := newChange()
		s.set("web-1", nil, one)
		s.set("web-1", many["web-2"], one)
		if err := k.apply(one); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds()), "us/change")
		k.close()
	}
}

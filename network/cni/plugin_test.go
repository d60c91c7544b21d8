package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newNamespace moves the calling goroutine, for good, into a network namespace
// of its own without links but its loopback, and returns the namespace's path.
func newNamespace() (string, error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return "", err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), netlink.LinkSetUp(lo)
}

// container is a goroutine in its own network namespace that answers at port 80
// once it is told to.
func container(t *testing.T) (path string, serve func()) {
	t.Helper()
	paths, do, done := make(chan string), make(chan func()), make(chan bool)
	go func() {
		p, err := newNamespace()
		if err != nil {
			t.Error(err)
		}
		paths <- p
		for fn := range do {
			fn()
			done <- true
		}
	}()
	t.Cleanup(func() { close(do) })
	return <-paths, func() {
		do <- func() {
			l, err := net.Listen("tcp4", ":80")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					fmt.Fprint(c, "from the container")
					c.Close()
				}
			}()
		}
		<-done
	}
}

func ask(ip [4]byte, port int) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: ip}); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

func TestAContainerIsReachedAndLeavesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if _, err := newNamespace(); err != nil {
		t.Skipf("needs the right to make network namespaces: %v", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		t.Skip(err)
	}
	path, serve := container(t)
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"n","type":"sampan-cni","subnet":"10.244.0.0/24","stateDir":%q,
		"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}}`, t.TempDir())
	args := &skel.CmdArgs{ContainerID: "c1", Netns: path, IfName: "eth0", StdinData: []byte(conf)}

	stdout := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	err = add(args)
	os.Stdout = stdout
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		IPs []struct{ Address, Gateway string }
	}
	if err := json.NewDecoder(r).Decode(&result); err != nil || len(result.IPs) != 1 || result.IPs[0].Address != "10.244.0.2/24" {
		t.Fatalf("result %+v, %v", result, err)
	}
	serve()
	for what, at := range map[string]struct {
		ip   [4]byte
		port int
	}{
		"its address": {[4]byte{10, 244, 0, 2}, 80}, "host port on the bridge": {[4]byte{10, 244, 0, 1}, 8080},
		"host port on loopback": {[4]byte{127, 0, 0, 1}, 8080},
	} {
		if got, err := ask(at.ip, at.port); got != "from the container" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	if err := check(args); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	for range 2 { // DEL may come any number of times
		if err := del(args); err != nil {
			t.Fatalf("DEL: %v", err)
		}
	}
	if _, err := ask([4]byte{127, 0, 0, 1}, 8080); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("host port after DEL: %v", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "veth") {
			t.Errorf("%s was left behind", l.Attrs().Name)
		}
	}
	if err := check(args); err == nil {
		t.Error("CHECK of a container that left succeeded")
	}
}

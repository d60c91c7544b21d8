package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// TestMain lets the test binary be the init of the machines it starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Applet {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces, mounts and cgroups")
	}
	if err := onOwnThread(func() error { return nil }); err != nil {
		t.Skipf("needs to enter network namespaces: %v", err)
	}
}

// boot starts a machine that idles, and removes it after the test.
func boot(t *testing.T, base string, host byte, change ...func(*Spec)) *Machine {
	t.Helper()
	spec := Spec{
		Name: fmt.Sprintf("n%d", host), Cluster: "test" + strconv.Itoa(os.Getpid()),
		Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, host}), 24),
		Argv:    []string{"sleep", "3600"},
	}
	for _, c := range change {
		c(&spec)
	}
	m := New(base, spec)
	t.Cleanup(func() {
		if err := m.Delete(context.Background()); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	began := clock.Now()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("machine %s started in %v", spec.Name, clock.Since(began))
	return m
}

// sh runs a shell command inside and returns what it printed.
func sh(t *testing.T, m *Machine, command string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if err := m.Exec(t.Context(), []string{"sh", "-c", command}, Stdio{Out: &out, Err: &errs}); err != nil {
		t.Errorf("%s: %v: %s", command, err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

func TestInsideOfAMachine(t *testing.T) {
	needRoot(t)
	m := boot(t, t.TempDir(), 10, func(s *Spec) {
		s.Capacity = Capacity{CPUs: 3}
		s.Hosts = []string{"100.64.0.99 neighbour"}
	})
	outside, _ := os.Hostname()
	panicOutside, _ := os.ReadFile("/proc/sys/kernel/panic")
	for _, c := range []struct{ what, command, want string }{
		{"host name", "cat /proc/sys/kernel/hostname /etc/hostname", "n10\nn10"},
		{"init is process 1", "tr '\\0' ' ' </proc/1/cmdline | cut -d' ' -f2", Applet},
		{"capacity is told", "echo $SAMPAN_CPUS", "3"},
		{"own cgroup is the root", "cut -d: -f3 /proc/self/cgroup | grep -v '^/$' | sort -u | grep -v init.scope", ""},
		{"neighbours have names", "grep neighbour /etc/hosts", "100.64.0.99 neighbour"},
		{"writes to /etc stay", "touch /etc/sampan-test-file && ls /etc/sampan-test-file", "/etc/sampan-test-file"},
		{"an empty /var/lib", "ls /var/lib", ""},
		{"an empty /run", "ls /run", "lock\nsampan"},
		{"a machine-wide setting reads as written", "echo 77 >/proc/sys/kernel/panic && cat /proc/sys/kernel/panic", "77"},
		{"mounts propagate", "mkdir /run/x && mount -t tmpfs x /run/x && findmnt -no PROPAGATION /run/x", "shared"},
		{"orphans are reaped", "sh -c 'sleep 0.01 & exit' ; sleep 0.2; ps -eo stat | grep -c ^Z", "0"},
		{"no route outside", "ip route get 192.0.2.1 | head -1 | grep -o 'via 100.64.0.1 dev eth0'", "via 100.64.0.1 dev eth0"},
	} {
		if c.what == "orphans are reaped" || strings.Contains(c.command, "grep -v") {
			c.command += " || true"
		}
		if got := sh(t, m, c.command); got != c.want {
			t.Errorf("%s: %s: got %q, want %q", c.what, c.command, got, c.want)
		}
	}
	if now, _ := os.Hostname(); now != outside {
		t.Errorf("the computer's own name became %q", now)
	}
	if now, _ := os.ReadFile("/proc/sys/kernel/panic"); !bytes.Equal(now, panicOutside) {
		t.Errorf("the computer's own kernel.panic became %q", now)
	}
	if _, err := os.Stat("/etc/sampan-test-file"); err == nil {
		t.Error("a file written to the machine's /etc is in the computer's")
	}
	var exit *exec.ExitError
	if err := m.Exec(t.Context(), []string{"sh", "-c", "exit 7"}, Stdio{}); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit 7 came back as %v", err)
	}
	if err := m.Exec(t.Context(), []string{"/no/such/program"}, Stdio{}); err == nil {
		t.Error("a missing program ran")
	}
}

func TestMachinesReachEachOtherAndNobodyElse(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	a, b := boot(t, base, 10), boot(t, base, 11)
	l, err := b.Listen(t.Context(), "100.64.0.11:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := ask(t, l, func() (net.Conn, error) { return a.Dial(t.Context(), "100.64.0.11:8080") }); got != "hello" {
		t.Errorf("machine to machine: got %q", got)
	}
	// 192.0.2.0/24 is reserved for documentation: it exists nowhere, and the
	// packet ends at the switch, which says so rather than keep silent.
	began := clock.Now()
	if conn, err := a.Dial(t.Context(), "192.0.2.1:80"); err == nil {
		conn.Close()
		t.Error("a machine reached an address outside")
	}
	if d := clock.Since(began); d > 10*time.Second {
		t.Errorf("an unreachable address was tried for %v", d)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Forward(ctx, front, "100.64.0.11:8080") }()
	if got := ask(t, l, func() (net.Conn, error) { return net.Dial("tcp", front.Addr().String()) }); got != "hello" {
		t.Errorf("through a forward: got %q", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("forward ended with %v", err)
	}
}

// ask connects, and has the listener's side say hello.
func ask(t *testing.T, l net.Listener, dial func() (net.Conn, error)) string {
	t.Helper()
	go func() {
		c, err := l.Accept()
		if err == nil {
			fmt.Fprint(c, "hello")
			c.Close()
		}
	}()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(clock.Now().Add(20 * time.Second))
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(got)
}

func TestSpecForwardsLastAsLongAsTheMachine(t *testing.T) {
	needRoot(t)
	port := freePort(t)
	m := boot(t, t.TempDir(), 10, func(s *Spec) {
		s.Forwards = []Forward{{Listen: port, Target: "127.0.0.1:8080"}}
	})
	l, err := m.Listen(t.Context(), "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := ask(t, l, func() (net.Conn, error) { return net.Dial("tcp", port) }); got != "hello" {
		t.Errorf("got %q", got)
	}
	if err := m.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", port); err == nil {
		c.Close()
		t.Error("the port is still open after the machine stopped")
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// traces returns whatever of a cluster's machines can be seen on this computer.
func traces(t *testing.T, cluster string) []string {
	t.Helper()
	var found []string
	trees, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	patterns := []string{netnsPath("*" + cluster + "*")}
	for _, h := range trees {
		patterns = append(patterns, filepath.Join(h.Mount, "*"+cluster+"*"))
	}
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, files...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, cluster) {
			found = append(found, line)
		}
	}
	return found
}

func TestStopStartAndDeleteLeaveNothing(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	m := boot(t, base, 10)
	cluster := m.Spec.Cluster
	if err := m.Start(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("second start = %v", err)
	}
	first, err := m.State()
	if err != nil || !first.Running {
		t.Fatalf("state = %+v, %v", first, err)
	}
	sh(t, m, "echo kept >/var/lib/file; echo gone >/run/file; mkdir /sys/fs/cgroup/*/deep /sys/fs/cgroup/*/deep/er 2>/dev/null; true")
	if err := m.Stop(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if st, err := m.State(); err != nil || st.Running {
		t.Errorf("state after stop = %+v, %v", st, err)
	}
	if err := m.Exec(t.Context(), []string{"true"}, Stdio{}); !errors.Is(err, ErrStopped) {
		t.Errorf("exec after stop = %v", err)
	}
	if left := traces(t, cluster+"-n10"); len(left) > 0 {
		t.Errorf("after stop: %q", left)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, m, "cat /var/lib/file; ls /run/file 2>/dev/null || echo none"); got != "kept\nnone" {
		t.Errorf("after a reboot: %q", got)
	}
	if err := m.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, cluster); len(left) > 0 {
		t.Errorf("after delete: %q", left)
	}
	if entries, _ := os.ReadDir(base); slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != cluster }) || len(entries) > 0 {
		t.Errorf("after delete the directory holds %v", entries)
	}
}

func TestStartRecoversFromKill(t *testing.T) {
	needRoot(t)
	m := boot(t, t.TempDir(), 10)
	sh(t, m, "setsid sleep 3600 >/dev/null 2>&1 & ip link add cni0 type bridge; echo kept >/var/lib/file")
	before, err := m.process()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(before.PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := awaitEnd(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if st, err := m.State(); err != nil || st.Running {
		t.Fatalf("state after kill = %+v, %v", st, err)
	}
	list, err := List(filepath.Dir(filepath.Dir(m.Dir)), m.Spec.Cluster)
	if err != nil || len(list) != 1 || list[0].Spec.Name != "n10" {
		t.Fatalf("list = %v, %v", list, err)
	}
	again := list[0]
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, again, "cat /var/lib/file; ip link show cni0 2>/dev/null || echo fresh network; pgrep -c sleep"); got != "kept\nfresh network\n1" {
		t.Errorf("after recovery: %q", got)
	}
}

func TestRestartOnlyOnFailure(t *testing.T) {
	needRoot(t)
	m := boot(t, t.TempDir(), 10, func(s *Spec) {
		s.Restart = true
		s.Argv = []string{"sh", "-c", "echo x >>/var/lib/runs; [ $(wc -l </var/lib/runs) -ge 3 ] && exec sleep 3600; exit 1"}
	})
	deadline := clock.Now().Add(30 * time.Second)
	for sh(t, m, "wc -l </var/lib/runs") != "3" {
		if clock.Now().After(deadline) {
			t.Fatal("the program was not started three times")
		}
		_ = clock.Sleep(t.Context(), 20*time.Millisecond)
	}
	if err := m.Stop(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(m.path("root/var/lib/runs")); strings.Count(string(got), "x") != 3 {
		t.Errorf("a stopped program was started again: %q", got)
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	needRoot(t)
	m := New(t.TempDir(), Spec{
		Name: "bad", Cluster: "test" + strconv.Itoa(os.Getpid()),
		Address: netip.MustParsePrefix("100.64.0.10/24"), Argv: []string{"no-such-program"},
	})
	t.Cleanup(func() { _ = m.Delete(context.Background()) })
	if err := m.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-program: not found") {
		t.Errorf("start = %v", err)
	}
	if left := traces(t, m.id()); len(left) > 0 {
		t.Errorf("after a failed start: %q", left)
	}
}

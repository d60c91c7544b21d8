package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/machine"
)

// InBin is where a machine sees the binary under test.
const InBin = "/run/test/bin/sampan"

// Machine is an empty computer on which a test starts programs by hand.
type Machine struct {
	*testing.T
	Host string // its name
	Addr netip.Addr
	Port string // of 127.0.0.1, forwarded to the machine's 6443
	Dir  string // seen inside as /run/hand
	m    *machine.Machine
	g    *run.Group

	mu   sync.Mutex
	said map[string]*bytes.Buffer
}

// Machine starts a machine at the next address; it ends with the test.
func (l *Lab) Machine(name string) *Machine {
	l.Helper()
	return l.MachineAt(name, l.last+1)
}

// MachineAt is Machine at 100.64.0.HOST.
func (l *Lab) MachineAt(name string, host byte) *Machine {
	l.Helper()
	l.last = max(l.last, host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	listen := listener.Addr().String()
	listener.Close()
	m := &Machine{T: l.T, Host: name, Addr: Address(host), Port: listen, Dir: l.TempDir(), said: map[string]*bytes.Buffer{}}
	if err := os.Chmod(m.Dir, 0o755); err != nil {
		l.Fatal(err)
	}
	m.m = machine.New(l.base, machine.Spec{
		Name: name, Cluster: l.cluster, Address: netip.PrefixFrom(m.Addr, 24), Argv: []string{"sleep", "7200"},
		Binds: append([]machine.Bind{{Source: filepath.Dir(l.binary), Target: filepath.Dir(InBin), ReadOnly: true}, {Source: m.Dir, Target: "/run/hand"}},
			l.homes()...),
		Forwards: []machine.Forward{{Listen: listen, Target: m.Addr.String() + ":6443"}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	m.g = run.New(ctx)
	l.Cleanup(func() {
		if l.Failed() {
			m.tell()
		}
		cancel()
		if err := m.m.Delete(context.Background()); err != nil {
			l.Errorf("delete the machine: %v", err)
		}
		_ = m.g.Wait()
	})
	m.Boot()
	return m
}

// homes are directories that tests write to and that would be the computer's.
func (l *Lab) homes() (binds []machine.Bind) {
	l.Helper()
	for _, dir := range []string{"/root", "/mnt"} {
		own := l.TempDir()
		if err := os.Chmod(own, 0o700); err != nil {
			l.Fatal(err)
		}
		binds = append(binds, machine.Bind{Source: own, Target: dir})
	}
	return binds
}

// tell prints the last words of every program.
func (m *Machine) tell() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, out := range m.said {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		m.Logf("%s: %s:\n  %s", m.Host, name, strings.Join(lines[max(0, len(lines)-15):], "\n  "))
	}
}

// locked writes what several programs say.
type locked struct {
	m *Machine
	w io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.w.Write(p)
}

// Start runs a program in the background. Its process id is in /run/NAME.pid
// inside; what it says is added to what an earlier one of the name said.
func (m *Machine) Start(name string, argv ...string) (ended <-chan error) {
	m.mu.Lock()
	if m.said[name] == nil {
		m.said[name] = &bytes.Buffer{}
	}
	out := locked{m, m.said[name]}
	m.mu.Unlock()
	end := make(chan error, 1)
	m.g.Go(name, func(ctx context.Context) error {
		shell := append([]string{"sh", "-c", `echo $$ > /run/` + name + `.pid; exec "$@"`, "sh"}, argv...)
		end <- m.m.Exec(ctx, shell, machine.Stdio{Out: out, Err: out})
		return nil
	})
	return end
}

// Stop sends a signal to a program that Start began.
func (m *Machine) Stop(name, signal string) {
	m.Helper()
	if out, err := m.Try("sh", "-c", "kill -"+signal+" $(cat /run/"+name+".pid)"); err != nil {
		m.Fatalf("kill -%s %s: %v %s", signal, name, err, out)
	}
}

// Said is what a program said so far.
func (m *Machine) Said(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said[name] == nil {
		return ""
	}
	return m.said[name].String()
}

// Try runs a program inside and returns what it printed.
func (m *Machine) Try(argv ...string) (string, error) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 4*Limit)
	defer cancel()
	err := m.m.Exec(ctx, argv, machine.Stdio{Out: &out, Err: &out})
	return out.String(), err
}

// Do is Try for what must succeed.
func (m *Machine) Do(argv ...string) string {
	m.Helper()
	out, err := m.Try(argv...)
	if err != nil {
		m.Fatalf("%s: %s: %v\n%s", m.Host, strings.Join(argv, " "), err, out)
	}
	return out
}

// Sh is Do of a shell script.
func (m *Machine) Sh(script string) string {
	m.Helper()
	return m.Do("sh", "-c", script)
}

// File writes a file that the machine sees as the returned path, /run/hand/NAME.
func (m *Machine) File(name, text string) string {
	m.Helper()
	path := filepath.Join(m.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
	return "/run/hand/" + name
}

// Answers waits until a page, asked for on the machine, says what it should.
func (m *Machine) Answers(url, want string, curl ...string) {
	m.Helper()
	Until(m, url, func() error {
		out, err := m.Try(append([]string{"curl", "-sk", "--max-time", "5", url}, curl...)...)
		if err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// Boot starts a machine that PowerOff ended: what its disks kept is there, no
// program runs.
func (m *Machine) Boot() {
	m.Helper()
	if err := m.m.Start(context.Background()); err != nil {
		m.Fatalf("boot %s: %v", m.Host, err)
	}
}

// PowerOff ends a machine and all it runs, as pulling its plug does.
func (m *Machine) PowerOff() {
	m.Helper()
	if err := m.m.Stop(context.Background(), 0); err != nil {
		m.Fatalf("power %s off: %v", m.Host, err)
	}
}

// CutOff pulls the machine's network cable; it lives on.
func (m *Machine) CutOff() {
	m.Helper()
	if err := m.m.CutOff(); err != nil {
		m.Fatalf("cut %s off: %v", m.Host, err)
	}
}

// Slow lets no more than so many bytes a second through the cable, in each
// direction; 0 is as fast as before.
func (m *Machine) Slow(bytesPerSecond uint64) {
	m.Helper()
	if err := m.m.Slow(bytesPerSecond); err != nil {
		m.Fatalf("slow %s down: %v", m.Host, err)
	}
}

// Narrow lets the cable carry no larger packets than that; 1500 is as before.
func (m *Machine) Narrow(mtu int) {
	m.Helper()
	if err := m.m.Narrow(mtu); err != nil {
		m.Fatalf("narrow the cable of %s: %v", m.Host, err)
	}
}

// Reconnect puts the cable in again.
func (m *Machine) Reconnect() {
	m.Helper()
	if err := m.m.Reconnect(); err != nil {
		m.Fatalf("reconnect %s: %v", m.Host, err)
	}
}

package e2e

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

// inBin is where a test's own machine sees the binary under test.
const inBin = "/run/test/bin/sampan"

// box is a machine that a test made for itself: an empty computer with a
// network that leads nowhere, in which the test starts programs by hand.
type box struct {
	*testing.T
	m    *machine.Machine
	port string // of 127.0.0.1, forwarded to the machine's 6443
	dir  string // seen inside as /run/hand
	g    *run.Group

	mu   sync.Mutex
	said map[string]*bytes.Buffer
}

// newBox starts a machine and removes it, and all it runs, after the test.
func newBox(t *testing.T, name string) *box {
	t.Helper()
	return newBoxAt(t, boxBase(t), name, 2)
}

// boxBase is where the machines of one test are kept, on a disk: overlays do
// not stand on overlays.
func boxBase(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("/var/tmp", "sampan-e2e-box-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	return base
}

// newBoxAt is newBox for one of several machines, at 100.64.0.HOST.
func newBoxAt(t *testing.T, base, name string, host byte) *box {
	t.Helper()
	address := netip.AddrFrom4([4]byte{100, 64, 0, host})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	l.Close()
	b := &box{T: t, port: listen, dir: t.TempDir(), said: map[string]*bytes.Buffer{}}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.m = machine.New(base, machine.Spec{
		Name: name, Cluster: cluster + strings.TrimPrefix(filepath.Base(base), "sampan-e2e-"), Address: netip.PrefixFrom(address, 24), Argv: []string{"sleep", "3600"},
		Binds:    []machine.Bind{{Source: filepath.Dir(binary), Target: filepath.Dir(inBin), ReadOnly: true}, {Source: b.dir, Target: "/run/hand"}},
		Forwards: []machine.Forward{{Listen: listen, Target: address.String() + ":6443"}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	b.g = run.New(ctx)
	t.Cleanup(func() {
		if t.Failed() {
			b.tell()
		}
		cancel()
		if err := b.m.Delete(context.Background()); err != nil {
			t.Errorf("delete the machine: %v", err)
		}
		_ = b.g.Wait()
	})
	if err := b.m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// tell prints the last words of every program.
func (b *box) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, out := range b.said {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		b.Logf("%s:\n  %s", name, strings.Join(lines[max(0, len(lines)-15):], "\n  "))
	}
}

// locked writes what several programs say.
type locked struct {
	b *box
	w io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	return l.w.Write(p)
}

// start runs a program in the background. Its process id is in /run/NAME.pid inside.
func (b *box) start(name string, argv ...string) (ended <-chan error) {
	b.mu.Lock()
	b.said[name] = &bytes.Buffer{}
	out := locked{b, b.said[name]}
	b.mu.Unlock()
	end := make(chan error, 1)
	b.g.Go(name, func(ctx context.Context) error {
		shell := append([]string{"sh", "-c", `echo $$ > /run/` + name + `.pid; exec "$@"`, "sh"}, argv...)
		end <- b.m.Exec(ctx, shell, machine.Stdio{Out: out, Err: out})
		return nil
	})
	return end
}

// stop asks a program that start began to end.
func (b *box) stop(name, signal string) {
	b.Helper()
	if out, err := b.try("sh", "-c", "kill -"+signal+" $(cat /run/"+name+".pid)"); err != nil {
		b.Fatalf("kill -%s %s: %v %s", signal, name, err, out)
	}
}

// output is what a program said so far.
func (b *box) output(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said[name].String()
}

// try runs a program inside and returns what it printed.
func (b *box) try(argv ...string) (string, error) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := b.m.Exec(ctx, argv, machine.Stdio{Out: &out, Err: &out})
	return out.String(), err
}

// do is try for what must succeed.
func (b *box) do(argv ...string) string {
	b.Helper()
	out, err := b.try(argv...)
	if err != nil {
		b.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// file writes a file that the machine sees as /run/hand/NAME.
func (b *box) file(name, text string) string {
	b.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return "/run/hand/" + name
}

// speaker returns a world that speaks to the box's API server with a kubeconfig.
func (b *box) speaker(w *world, kubeconfig string) *world {
	return &world{b.T, append(w.kubectl[:len(w.kubectl):len(w.kubectl)], "--kubeconfig="+kubeconfig)}
}

// answers waits until a page inside the machine says what it should.
func (b *box) answers(w *world, url, want string, curl ...string) {
	b.Helper()
	w.until(url, func() error {
		out, err := b.try(append([]string{"curl", "-sk", "--max-time", "5", url}, curl...)...)
		if err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/machine"
)

// Limit bounds every wait; it is generous, since the computer may be busy.
const Limit = time.Minute

// Main is what a package with labs has as its TestMain: the test binary is also
// process 1 of the machines. run runs the tests, as (*testing.M).Run does.
func Main(m *testing.M, run func(*testing.M) int) int {
	if len(os.Args) > 1 && os.Args[1] == machine.Applet {
		return machine.Main(os.Args[1:])
	}
	if code, ours := stand(os.Args); ours {
		return code
	}
	if Cannot() == "" {
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, "lab: what a killed run left:", err)
		}
	}
	code := run(m)
	archives.remove()
	return code
}

// prefix begins the directories of labs, followed by the process that has them.
const prefix = "/var/tmp/sampan-lab-"

func directory(what string) (string, error) {
	return os.MkdirTemp("/var/tmp", fmt.Sprintf("%s%d-%s-", filepath.Base(prefix), os.Getpid(), what))
}

// sweep removes what runs left that were killed.
func sweep() error {
	dirs, err := filepath.Glob(prefix + "*")
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(dir, prefix), "-")
		if _, alive := os.Stat("/proc/" + pid); alive == nil {
			continue
		}
		left, listErr := machine.List(dir, "")
		err = errors.Join(err, listErr)
		for _, m := range left {
			err = errors.Join(err, m.Delete(context.Background()))
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Binary is the program under test: what `make build` made of this tree, or what
// the environment's SAMPAN names.
func Binary() (string, error) {
	if p := os.Getenv("SAMPAN"); p != "" {
		return filepath.Abs(p)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		} else if dir == "/" {
			return "", errors.New("no go.mod above: tests run from the tree")
		}
	}
	path := filepath.Join(dir, "bin", "sampan")
	if _, err := os.Stat(path); err != nil {
		return "", errors.New("bin/sampan is not built: run make build")
	}
	return path, nil
}

// Cannot says what keeps machines from being made here, empty if nothing does.
func Cannot() string {
	if _, err := Binary(); err != nil {
		return err.Error()
	}
	if os.Getuid() != 0 {
		return "needs root: machines are made of namespaces"
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return "runc is not installed: run make deps"
	}
	return ""
}

// Lab is one switch and the machines on it.
type Lab struct {
	*testing.T
	base    string // where the machines are kept
	cluster string
	binary  string
	last    byte // of the last machine's address
}

// New is an empty lab; it and its machines end with the test. Where machines
// cannot be made the test is skipped, saying why.
func New(t *testing.T) *Lab {
	t.Helper()
	if why := Cannot(); why != "" {
		t.Skip(why)
	}
	binary, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	// On a disk: overlays do not stand on overlays.
	base, err := directory("net")
	if err != nil {
		t.Fatal(err)
	}
	l := &Lab{T: t, base: base, cluster: "lab" + base[strings.LastIndex(base, "-")+1:], binary: binary, last: 1}
	t.Cleanup(func() {
		sw := machine.Switch{Cluster: l.cluster, Subnet: machine.DefaultSubnet}
		if err := errors.Join(sw.Delete(), os.RemoveAll(base)); err != nil {
			t.Errorf("clear the lab: %v", err)
		}
	})
	return l
}

// Address is that of the machine with a number: the lab's network is
// 100.64.0.0/24, and .1 is its switch.
func Address(host byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, host}) }

// Until repeats fn until it returns no error, and fails the test after Limit.
func Until(t testing.TB, what string, fn func() error) {
	t.Helper()
	Within(t, Limit, what, fn)
}

// Within is Until with a bound of its own; it returns how long it took.
func Within(t testing.TB, limit time.Duration, what string, fn func() error) time.Duration {
	t.Helper()
	start := clock.Now()
	var err error
	for clock.Since(start) < limit {
		if err = fn(); err == nil {
			return clock.Since(start)
		}
		_ = clock.Sleep(context.Background(), 100*time.Millisecond)
	}
	t.Fatalf("%s: not after %s: %v", what, limit, err)
	return 0
}

// archives are the images that scenes need, built once for all tests of a binary.
var archives images

type images struct {
	once  sync.Once
	home  string
	files []string
	err   error
}

// Images returns archives of nginx and busybox, made of Debian's packages.
func Images(t testing.TB) []string {
	t.Helper()
	archives.once.Do(archives.build)
	if archives.err != nil {
		t.Fatal(archives.err)
	}
	return archives.files
}

func (i *images) build() {
	binary, err := Binary()
	if err != nil {
		i.err = err
		return
	}
	if i.home, i.err = directory("images"); i.err != nil {
		return
	}
	for _, args := range [][]string{{"nginx", "-t", "nginx:latest", "-t", "nginx:1.25"}, {"busybox"}} {
		cmd := exec.Command(binary, append([]string{"image", "build", "--cluster", "lab", "--cache", "/var/tmp/sampan-deb-cache", "--from-deb"}, args...)...)
		cmd.Env = append(os.Environ(), "SAMPAN_HOME="+i.home)
		if out, err := cmd.CombinedOutput(); err != nil {
			i.err = fmt.Errorf("image of %s: %w: %s", args[0], err, out)
			return
		}
	}
	i.files, i.err = filepath.Glob(filepath.Join(i.home, "images", "*.tar"))
}

func (i *images) remove() {
	if i.home != "" {
		os.RemoveAll(i.home)
	}
}

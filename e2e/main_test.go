package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/machine"
)

// The binary under test and where its clusters live during the tests.
var (
	binary   string
	home     string
	kubectls map[string][]string // how to call kubectl: "stock" where there is one, "built-in"
)

// The tests' cluster, and the one that has two nodes.
const (
	cluster  = "e2e"
	twoNodes = "e2e2"
)

// TestMain lets the test binary be the init of the machines that tests make
// themselves, and else brings the tests' cluster up and away again.
func TestMain(m *testing.M) { os.Exit(lab.Main(m, mainCode)) }

func mainCode(m *testing.M) int {
	if why := cannotRun(); why != "" {
		fmt.Println("e2e: skipped:", why)
		return m.Run()
	}
	alone, err := only()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer alone.Close()
	removeOldRuns()
	if home, err = os.MkdirTemp("/var/tmp", homePrefix); err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(home)
	os.Setenv("SAMPAN_HOME", home)
	os.Setenv("KUBECONFIG", filepath.Join(home, "kubeconfig"))
	os.Setenv("KUBECACHEDIR", filepath.Join(home, "cache"))
	kubectls = map[string][]string{"built-in": {binary, "kubectl"}}
	if stock, err := exec.LookPath("kubectl"); err == nil {
		kubectls["stock"] = []string{stock}
	}
	before := traces()
	code := 1
	if err := bringUp(); err != nil {
		fmt.Println("e2e: the cluster did not come up:", err)
	} else {
		code = m.Run()
	}
	out, err := exec.Command(binary, "down", cluster, "--delete").CombinedOutput()
	if err != nil {
		fmt.Printf("e2e: down --delete: %v\n%s", err, out)
		code = 1
	}
	if after := traces(); after != before {
		fmt.Printf("e2e: down --delete left something behind.\nbefore:\n%s\nafter:\n%s\n", before, after)
		code = 1
	}
	return code
}

const homePrefix = "sampan-e2e-"

// only waits until no other run of these tests is under way on this computer:
// their clusters have the same names. The lock ends with the process.
func only() (*os.File, error) {
	f, err := os.OpenFile("/var/tmp/sampan-e2e.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return f, nil
	}
	fmt.Println("e2e: another run is under way: waiting for its end")
	return f, unix.Flock(int(f.Fd()), unix.LOCK_EX)
}

// removeOldRuns removes what a killed run left.
func removeOldRuns() {
	old, _ := filepath.Glob("/var/tmp/" + homePrefix + "*")
	for _, dir := range old {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			continue
		}
		for _, base := range []string{filepath.Join(dir, "clusters"), dir} { // sampan's, and machines that tests made themselves
			left, err := machine.List(base, "")
			for _, m := range left {
				sw := machine.Switch{Cluster: m.Spec.Cluster, Subnet: m.Spec.Address.Masked()}
				err = errors.Join(err, m.Delete(context.Background()), sw.Delete())
			}
			if err != nil {
				fmt.Printf("e2e: an old run in %s: %v\n", dir, err)
			}
		}
		os.RemoveAll(dir)
	}
}

// cannotRun says what keeps the tests from running here.
func cannotRun() string {
	var err error
	if binary, err = lab.Binary(); err != nil {
		return err.Error()
	}
	return lab.Cannot()
}

func bringUp() error {
	for _, args := range [][]string{
		{"image", "build", "--cluster", cluster, "--from-deb", "nginx", "-t", "nginx:latest", "-t", "nginx:1.25", "--cache", "/var/tmp/sampan-deb-cache"},
		{"image", "build", "--cluster", cluster, "--from-deb", "busybox", "--cache", "/var/tmp/sampan-deb-cache"},
		{"up", cluster, "--wait", "2m"},
	} {
		out, err := exec.Command(binary, args...).CombinedOutput()
		fmt.Printf("e2e: sampan %s\n%s", strings.Join(args, " "), out)
		if err != nil {
			return fmt.Errorf("sampan %s: %w", args[0], err)
		}
	}
	return nil
}

// traces lists what the tests' cluster has left on this computer: namespaces,
// links, mounts, cgroups and the processes in them. Other clusters do not count.
func traces() string {
	script := `id=sampan-` + cluster + `; ip netns list | grep "$id"; ip -o link | grep "$id"; grep "$id" /proc/self/mounts;
find /sys/fs/cgroup -maxdepth 3 -type d -name "*$id*" | sort; grep -l "$id" /proc/[0-9]*/cgroup 2>/dev/null; true`
	out, _ := exec.Command("sh", "-c", script).CombinedOutput()
	return string(out)
}

// sampan runs the binary under test, which must succeed.
func (w *world) sampan(args ...string) string {
	w.Helper()
	out, err := exec.Command(binary, args...).CombinedOutput()
	if err != nil {
		w.Fatalf("sampan %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// world is one kubectl against the cluster.
type world struct {
	*testing.T
	kubectl []string
}

// each runs a test with every kubectl there is.
func each(t *testing.T, fn func(w *world)) {
	if why := cannotRun(); why != "" {
		t.Skip(why)
	}
	for name, k := range kubectls {
		t.Run(name, func(t *testing.T) { fn(&world{t, k}) })
	}
}

// one runs a test with the stock kubectl where there is one, else the built-in.
// What kubectl itself does is the same in both; only the first scene needs both.
func one(t *testing.T) *world {
	t.Helper()
	if why := cannotRun(); why != "" {
		t.Skip(why)
	}
	if k, ok := kubectls["stock"]; ok {
		return &world{t, k}
	}
	return &world{t, kubectls["built-in"]}
}

// beside is one for a test that leaves the others' nodes and pods alone.
func beside(t *testing.T) *world {
	w := one(t)
	t.Parallel()
	return w
}

// limit bounds every wait; it is generous, since the machine may be busy.
const limit = time.Minute

// try runs kubectl and returns its output, both streams together, and its error.
func (w *world) try(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.kubectl[0], append(w.kubectl[1:len(w.kubectl):len(w.kubectl)], args...)...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// k runs kubectl, which must succeed.
func (w *world) k(args ...string) string {
	w.Helper()
	return w.in("", args...)
}

// in runs kubectl with standard input; it must succeed.
func (w *world) in(stdin string, args ...string) string {
	w.Helper()
	out, err := w.try(stdin, args...)
	if err != nil {
		w.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs kubectl, which must fail saying all of texts.
func (w *world) fails(stdin string, texts []string, args ...string) {
	w.Helper()
	out, err := w.try(stdin, args...)
	if err == nil {
		w.Errorf("kubectl %s succeeded:\n%s", strings.Join(args, " "), out)
	}
	w.says(out, texts...)
}

// says checks that an output has all of texts.
func (w *world) says(out string, texts ...string) {
	w.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			w.Errorf("%q is missing in:\n%s", text, out)
		}
	}
}

// until repeats fn until it returns no error.
func (w *world) until(what string, fn func() error) {
	w.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = fn(); err == nil {
			return
		}
	}
	state, _ := w.try("", "get", "pods", "-A", "-o", "wide")
	w.Fatalf("%s: not after %s: %v\n%s", what, limit, err, state)
}

// shows waits until kubectl's output has all of texts.
func (w *world) shows(texts []string, args ...string) string {
	w.Helper()
	var out string
	w.until("kubectl "+strings.Join(args, " "), func() error {
		var err error
		if out, err = w.try("", args...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				return fmt.Errorf("%q is missing in %s", text, out)
			}
		}
		return nil
	})
	return out
}

// node runs a command inside the cluster's node.
func (w *world) node(argv ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.Command(binary, append([]string{"exec", "--cluster", cluster, "--"}, argv...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// namespace makes a namespace for one test and removes it afterwards.
func (w *world) namespace() string {
	w.Helper()
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == '_' {
			return '-'
		}
		return r
	}, w.Name()))
	w.k("create", "namespace", name)
	w.shows([]string{"default"}, "-n", name, "get", "serviceaccount")
	w.Cleanup(func() {
		if out, err := w.try("", "delete", "namespace", name, "--ignore-not-found", "--timeout=90s"); err != nil {
			w.Errorf("delete namespace %s: %v\n%s", name, err, out)
		}
	})
	return name
}

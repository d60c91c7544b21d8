// Package planes tests clusters of several control planes: what is lost, stops,
// or is cut off, and what goes on.
package planes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/machine"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, (*testing.M).Run)) }

// fleet is a cluster that sampan up made.
type fleet struct {
	*testing.T
	home, name, binary string
	c                  *client.HTTP // by the door
}

// launch makes a cluster of three control planes and nothing else; it ends with
// the test.
func launch(t *testing.T) *fleet {
	t.Helper()
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
	if why := lab.Cannot(); why != "" {
		t.Skip(why)
	}
	binary, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("/var/tmp", fmt.Sprintf("sampan-lab-%d-planes-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{T: t, home: home, name: "planes" + strconv.Itoa(os.Getpid()%100000), binary: binary}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range 3 {
				text, _ := os.ReadFile(filepath.Join(f.machine(i).Dir, "console.log"))
				lines := strings.Split(string(text), "\n")
				t.Logf("%s: its last words:\n%s", f.machine(i).Spec.Name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
			}
		}
		f.sampan("down", f.name, "--delete")
		left, _ := filepath.Glob("/run/netns/sampan-" + f.name + "*")
		if len(left) > 0 {
			t.Errorf("down --delete leaves %v", left)
		}
		os.RemoveAll(home)
	})
	start := clock.Now()
	f.sampan("up", f.name, "--nodes", "3", "--control-planes", "3", "--wait", "4m")
	t.Logf("three control planes Ready after %.1f s", clock.Since(start).Seconds())
	f.connect()
	return f
}

func (f *fleet) connect() {
	f.Helper()
	var err error
	if f.c, err = client.FromKubeconfig(filepath.Join(f.home, "kubeconfig"), ""); err != nil {
		f.Fatal(err)
	}
}

func (f *fleet) sampan(args ...string) string {
	f.Helper()
	cmd := exec.Command(f.binary, args...)
	cmd.Env = append(os.Environ(), "SAMPAN_HOME="+f.home, "KUBECONFIG="+filepath.Join(f.home, "kubeconfig"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.Fatalf("sampan %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// machine is the i-th of the cluster, from 0.
func (f *fleet) machine(i int) *machine.Machine {
	f.Helper()
	name := fmt.Sprintf("%s-%d", f.name, i+1)
	m, err := machine.Open(filepath.Join(f.home, "clusters", f.name, name))
	if err != nil {
		f.Fatal(err)
	}
	return m
}

// server sends a signal to a machine's server.
func (f *fleet) server(i int, sig syscall.Signal) {
	f.Helper()
	st, err := f.machine(i).State()
	if err != nil || !st.Running {
		f.Fatalf("machine %d does not run: %v", i+1, err)
	}
	all, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", st.PID))
	for _, pid := range strings.Fields(string(all)) {
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if n, err := strconv.Atoi(pid); err == nil && bytes.Contains(line, []byte("\x00server\x00")) {
			if err := syscall.Kill(n, sig); err != nil {
				f.Fatal(err)
			}
			return
		}
	}
	f.Fatalf("machine %d runs no server", i+1)
}

// kubectl runs kubectl on a machine, against an API server there or elsewhere.
func (f *fleet) kubectl(i int, server string, args ...string) (string, error) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), lab.Limit)
	defer cancel()
	err := f.machine(i).Exec(ctx, append([]string{machine.Binary, "kubectl", "--kubeconfig=/var/lib/sampan/admin.conf", "--server=https://" + server}, args...), machine.Stdio{Out: &out, Err: &out})
	return out.String(), err
}

// until waits and says how long it took.
func (f *fleet) until(what string, fn func(ctx context.Context) error) time.Duration {
	f.Helper()
	return lab.Within(f, 2*lab.Limit, what, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		return fn(ctx)
	})
}

// written is the write of one ConfigMap through a connection.
func written(c client.Interface, name string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.Of[corev1.ConfigMap](c, metav1.NamespaceDefault).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
}

// acts waits until the controllers act: a new namespace gets its account.
func (f *fleet) acts(name string) time.Duration {
	f.Helper()
	return f.until("the controllers act", func(ctx context.Context) error {
		_, err := client.Of[corev1.Namespace](f.c, "").Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		_, err = client.Of[corev1.ServiceAccount](f.c, name).Get(ctx, "default")
		return err
	})
}

// schedules waits until the scheduler acts.
func (f *fleet) schedules(namespace string) time.Duration {
	f.Helper()
	pods := client.Of[corev1.Pod](f.c, namespace)
	return f.until("the scheduler acts", func(ctx context.Context) error {
		_, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause:3.10.2", ImagePullPolicy: corev1.PullNever}}, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		p, err := pods.Get(ctx, "p")
		if err == nil && p.Spec.NodeName == "" {
			err = errors.New("not bound yet")
		}
		return err
	})
}

// all waits until every control plane answers for itself and is Ready.
func (f *fleet) all() {
	f.Helper()
	for i := range 3 {
		f.until(fmt.Sprintf("control plane %d is ready", i+1), func(context.Context) error {
			out, err := f.kubectl(i, "127.0.0.1:6443", "--request-timeout=3s", "get", "--raw", "/readyz")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
}

// restarts are how often the cluster's containers were started again.
func (f *fleet) restarts() string {
	f.Helper()
	var out []string
	f.until("pods are listed", func(ctx context.Context) error {
		pods, err := client.Of[corev1.Pod](f.c, metav1.NamespaceSystem).List(ctx, nil)
		out = nil
		for i := range pods {
			for _, s := range pods[i].Status.ContainerStatuses {
				out = append(out, fmt.Sprintf("%s %s %d", pods[i].Name, s.ContainerID, s.RestartCount))
			}
		}
		return err
	})
	return strings.Join(out, "\n")
}

// writer writes all the time and remembers what was acknowledged.
type writer struct {
	acked []string
	ended atomic.Bool
	g     *run.Group
}

func (f *fleet) writer(prefix string) *writer {
	w := &writer{g: run.New(context.Background())}
	w.g.Go("writer", func(ctx context.Context) error {
		for n := 0; !w.ended.Load(); n++ {
			name := fmt.Sprintf("%s-%d", prefix, n)
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			err := written(f.c, name)(try)
			cancel()
			if err == nil {
				w.acked = append(w.acked, name)
			}
			_ = clock.Sleep(ctx, 10*time.Millisecond)
		}
		return nil
	})
	return w
}

// check ends the writer and looks for what it was told is there.
func (w *writer) check(f *fleet) {
	f.Helper()
	w.ended.Store(true)
	if err := w.g.Wait(); err != nil {
		f.Fatal(err)
	}
	have := map[string]bool{}
	f.until("what was written is listed", func(ctx context.Context) error {
		list, err := client.Of[corev1.ConfigMap](f.c, metav1.NamespaceDefault).List(ctx, nil)
		for i := range list {
			have[list[i].Name] = true
		}
		return err
	})
	for _, name := range w.acked {
		if !have[name] {
			f.Errorf("%s was acknowledged and is lost", name)
		}
	}
	f.Logf("%d acknowledged writes, all there", len(w.acked))
}

// Each control plane in turn is killed, stops, is cut off, and loses its power:
// the API, the controllers and the scheduler go on with the others, nothing
// acknowledged is lost and no container restarts; and it comes back by itself.
func TestOneOfThreeIsLost(t *testing.T) {
	f := launch(t)
	f.until("cluster DNS runs", func(ctx context.Context) error {
		pods, err := client.Of[corev1.Pod](f.c, metav1.NamespaceSystem).List(ctx, nil)
		if err != nil {
			return err
		}
		for i := range pods {
			if s := pods[i].Status.ContainerStatuses; len(s) > 0 && s[0].Ready {
				return nil
			}
		}
		return errors.New("no pod is ready")
	})
	for n, loss := range []struct {
		name       string
		lose, mend func(i int)
	}{
		{"killed", func(i int) { f.server(i, syscall.SIGKILL) }, func(int) {}},
		{"stopped", func(i int) { f.server(i, syscall.SIGSTOP) }, func(i int) { f.server(i, syscall.SIGCONT) }},
		{"cut off", func(i int) { must(f, f.machine(i).CutOff()) }, func(i int) { must(f, f.machine(i).Reconnect()) }},
		{"without power", func(i int) { must(f, f.machine(i).Stop(context.Background(), 0)) }, func(i int) { f.sampan("up", f.name, "--wait", "4m") }},
	} {
		f.all()
		i := f.leader()
		before := f.restarts()
		w := f.writer("w" + strconv.Itoa(n))
		_ = clock.Sleep(t.Context(), time.Second)
		loss.lose(i)
		api := f.until("a write through the door", written(f.c, "after-"+strconv.Itoa(n)))
		var others time.Duration
		for j := range 3 {
			if j != i {
				others += f.until("a write through another control plane", func(context.Context) error {
					out, err := f.kubectl(j, "127.0.0.1:6443", "--request-timeout=3s", "create", "configmap", fmt.Sprintf("by-%d-%d", n, j))
					if err != nil && !strings.Contains(out, "already exists") {
						return fmt.Errorf("%w: %s", err, out)
					}
					return nil
				})
			}
		}
		acts := f.acts("ns-" + strconv.Itoa(n))
		schedules := f.schedules("ns-" + strconv.Itoa(n))
		which := fmt.Sprintf("control plane %d %s: ", i+1, loss.name)
		promised(t, which+"a write through the door", api, 5*time.Second)
		promised(t, which+"and through every other endpoint", api+others, 5*time.Second)
		promised(t, which+"controllers act", api+others+acts, 10*time.Second)
		promised(t, which+"the scheduler acts", api+others+acts+schedules, 10*time.Second)
		if loss.name == "cut off" {
			if out, err := f.kubectl(i, "127.0.0.1:6443", "--request-timeout=5s", "get", "configmaps"); err == nil {
				t.Errorf("the one that is cut off answers a read that must be fresh:\n%s", out)
			}
			if out, err := f.kubectl(i, "127.0.0.1:6443", "--request-timeout=10s", "get", "--raw", "/api/v1/namespaces?resourceVersion=0"); err != nil {
				t.Errorf("the one that is cut off does not answer from memory: %v %s", err, out)
			}
		}
		loss.mend(i)
		f.all()
		w.check(f)
		if after := f.restarts(); loss.name != "without power" && after != before {
			t.Errorf("%s: containers before:\n%s\nafter:\n%s", loss.name, before, after)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// leader is the control plane that holds the controllers' lease.
func (f *fleet) leader() (i int) {
	f.Helper()
	f.until("somebody leads", func(context.Context) error {
		for n := range 3 {
			out, err := f.kubectl(n, "127.0.0.1:6443", "--request-timeout=3s", "-n", "kube-system", "get", "lease", "kube-controller-manager", "-o", "jsonpath={.spec.holderIdentity}")
			number, found := strings.CutPrefix(out, f.name+"-")
			if k, convErr := strconv.Atoi(number); err == nil && found && convErr == nil {
				i = k - 1
				return nil
			}
		}
		return errors.New("no holder")
	})
	return i
}

// Two of three are lost: what is in memory is served, what needs a majority is
// refused; one that returns is enough. All are killed, and form the cluster again.
func TestTwoOfThreeAreLost(t *testing.T) {
	f := launch(t)
	must(t, written(f.c, "before")(t.Context()))
	uid := func() (uid string) {
		f.until("the system's namespace is read", func(ctx context.Context) error {
			ns, err := client.Of[corev1.Namespace](f.c, "").Get(ctx, metav1.NamespaceSystem)
			if err == nil {
				uid = string(ns.UID)
			}
			return err
		})
		return uid
	}
	identity := uid()
	f.server(0, syscall.SIGSTOP)
	f.server(1, syscall.SIGSTOP)
	took := f.until("reads from memory through the door", func(ctx context.Context) error {
		_, err := f.c.Raw(ctx, "GET", "/api/v1/namespaces?resourceVersion=0", nil)
		return err
	})
	t.Logf("two are lost: reads from memory after %.1f s", took.Seconds())
	out, err := f.kubectl(2, "127.0.0.1:6443", "--request-timeout=20s", "create", "configmap", "refused")
	if err == nil || !strings.Contains(strings.ToLower(out), "timeout") && !strings.Contains(out, "timed out") {
		t.Errorf("a write without a majority: %v %s", err, out)
	}
	f.server(0, syscall.SIGCONT)
	t.Logf("one returns: writes after %.1f s", f.until("a write", written(f.c, "again")).Seconds())
	f.server(1, syscall.SIGCONT)
	f.all()
	for i := range 3 {
		st, err := f.machine(i).State()
		must(t, err)
		must(t, syscall.Kill(st.PID, syscall.SIGKILL))
	}
	for i := range 3 {
		f.until("a killed machine is off", func(context.Context) error {
			if st, err := f.machine(i).State(); err != nil || st.Running {
				return fmt.Errorf("running: %v %v", st.Running, err)
			}
			return nil
		})
	}
	start := clock.Now()
	f.sampan("up", f.name, "--wait", "4m")
	t.Logf("all were killed: up after %.1f s", clock.Since(start).Seconds())
	f.connect()
	f.all()
	if now := uid(); now != identity {
		t.Errorf("another cluster came up: %s, want %s", now, identity)
	}
	f.until("what was written is there", func(ctx context.Context) error {
		_, err := client.Of[corev1.ConfigMap](f.c, metav1.NamespaceDefault).Get(ctx, "before")
		return err
	})
}

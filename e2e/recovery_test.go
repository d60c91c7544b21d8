package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/machine"
)

// node1 is the cluster's machine as this computer sees it.
func node1(w *world) *machine.Machine {
	w.Helper()
	m, err := machine.Open(filepath.Join(home, "clusters", cluster, cluster+"-1"))
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// initOf returns the process that everything in the machine descends from.
func initOf(w *world, m *machine.Machine) int {
	w.Helper()
	st, err := m.State()
	if err != nil || !st.Running {
		w.Fatalf("%s does not run: %v", m.Spec.Name, err)
	}
	return st.PID
}

// serverOf returns the process of a machine that is its control plane and node.
func serverOf(w *world, m *machine.Machine) int {
	w.Helper()
	for _, pid := range children(initOf(w, m)) {
		if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); slices.Contains(strings.Split(string(line), "\x00"), "server") {
			return pid
		}
	}
	w.Fatal("the node runs no server")
	return 0
}

func children(pid int) (all []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// resident is a deployment that must come through what is done to its cluster.
type resident struct {
	*world
	ns string
}

func settle(w *world) *resident {
	r := &resident{w, w.namespace()}
	w.k("-n", r.ns, "create", "-f", "testdata/resident.yml")
	w.running(r.ns, "app=resident", 3)
	return r
}

// identities are what a cluster must not lose.
func (r *resident) identities() string {
	r.Helper()
	const uids = `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}`
	return r.k("get", "nodes,namespaces", "-o", uids) + r.k("-n", r.ns, "get", "deployments,pods,services", "-o", uids)
}

// lives lists the containers of the resident's pods and how often they were restarted.
func (r *resident) lives() string {
	r.Helper()
	return r.k("-n", r.ns, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
}

// writer creates ConfigMaps and remembers which were acknowledged. What fails
// in transit is tried again, as any client would.
type writer struct {
	maps   client.Typed[corev1.ConfigMap]
	next   atomic.Int64
	acked  [1000]atomic.Bool
	failed atomic.Int64
}

func (wr *writer) write(ctx context.Context) error {
	for {
		n := wr.next.Add(1) - 1
		if n >= int64(len(wr.acked)) {
			return nil
		}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c-%04d", n)}, Data: map[string]string{"n": fmt.Sprint(n)}}
		for {
			_, err := wr.maps.Create(ctx, cm)
			if err == nil {
				wr.acked[n].Store(true)
				break
			}
			if apierrors.IsAlreadyExists(err) { // stored, though the answer was lost
				break
			}
			wr.failed.Add(1)
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", cm.Name, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// The control plane is killed in the middle of 1,000 creates: whatever was
// acknowledged is there afterwards, and no pod noticed.
func TestKillTheControlPlane(t *testing.T) {
	w := one(t)
	r := settle(w)
	lives, node := r.lives(), node1(w)
	before := serverOf(w, node)
	c, err := client.FromKubeconfig("", "sampan-"+cluster)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	wr := &writer{maps: client.Of[corev1.ConfigMap](c, r.ns)}
	g := run.New(ctx)
	for i := range 8 {
		g.Go(fmt.Sprint("writer ", i), wr.write)
	}
	w.until("a third is written", func() error {
		if n := wr.next.Load(); n < 300 {
			return fmt.Errorf("%d begun", n)
		}
		return nil
	})
	killed := time.Now()
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	begun := wr.next.Load()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed after %d creates were begun; all written %.1f s later; %d tries failed meanwhile", begun, time.Since(killed).Seconds(), wr.failed.Load())
	if begun >= int64(len(wr.acked)) {
		t.Error("the kill came after the last create")
	}
	if wr.failed.Load() == 0 {
		t.Error("no create noticed the kill")
	}
	stored, err := wr.maps.List(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, cm := range stored {
		have[cm.Name] = cm.Data["n"]
	}
	acked := 0
	for n := range wr.acked {
		name := fmt.Sprintf("c-%04d", n)
		if wr.acked[n].Load() {
			acked++
		}
		if have[name] != fmt.Sprint(n) {
			t.Errorf("%s (acknowledged: %v) is %q", name, wr.acked[n].Load(), have[name])
		}
	}
	t.Logf("%d of %d acknowledged at the first answer, all there", acked, len(wr.acked))
	if after := serverOf(w, node); after == before {
		t.Error("the server was not killed")
	}
	w.shows([]string{" Ready "}, "get", "node", cluster+"-1")
	w.running(r.ns, "app=resident", 3)
	if now := r.lives(); now != lives {
		t.Errorf("containers before:\n%safter:\n%s", lives, now)
	}
}

// Everything of the cluster is killed at once, as when the power fails: up
// brings back the same cluster.
func TestKillEverything(t *testing.T) {
	w := one(t)
	r := settle(w)
	ids, node := r.identities(), node1(w)
	if err := unix.Kill(initOf(w, node), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("the node is off", func() error {
		if st, err := node.State(); err != nil || st.Running {
			return fmt.Errorf("running: %v %v", st.Running, err)
		}
		return nil
	})
	w.says(w.sampan("ls"), "Stopped")
	w.fails("", []string{"refused"}, "get", "nodes")
	start := time.Now()
	w.says(w.sampan("up", cluster, "--wait", "2m"), "is up")
	t.Logf("up after kill -9 of everything: %.1f s", time.Since(start).Seconds())
	back(r, ids, "1")
}

// back checks that the same cluster is there and its pods run again.
func back(r *resident, ids, restarts string) {
	r.Helper()
	start := time.Now()
	r.shows([]string{" Ready "}, "get", "node", cluster+"-1")
	r.until("every container was started again", func() error {
		out, err := r.try("", "-n", r.ns, "get", "pods", "-l", "app=resident", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount} {.items[*].status.containerStatuses[0].ready}")
		if want := strings.Repeat(restarts+" ", 3) + "true true true"; out != want {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	r.Logf("pods Ready again after %.1f s more", time.Since(start).Seconds())
	r.running(r.ns, "app=resident", 3)
	if now := r.identities(); now != ids {
		r.Errorf("before:\n%safter:\n%s", ids, now)
	}
	pod := r.pods(r.ns, "app=resident")[0]
	r.says(r.k("-n", r.ns, "exec", pod, "--", "echo", "alive"), "alive")
}

// down keeps the cluster, up brings it back, and up of a running cluster
// changes nothing.
func TestDownAndUp(t *testing.T) {
	w := one(t)
	r := settle(w)
	ids, node := r.identities(), node1(w)
	server := serverOf(w, node)
	w.says(w.sampan("up", cluster), "is up")
	if serverOf(w, node) != server {
		t.Error("up of a running cluster restarted it")
	}
	start := time.Now()
	w.sampan("down", cluster)
	t.Logf("down: %.1f s", time.Since(start).Seconds())
	w.says(w.sampan("ls"), "Stopped")
	w.sampan("down", cluster) // nothing to do, and no error
	start = time.Now()
	w.says(w.sampan("up", cluster, "--wait", "2m"), "is up")
	t.Logf("up again: %.1f s", time.Since(start).Seconds())
	back(r, ids, "1")
}

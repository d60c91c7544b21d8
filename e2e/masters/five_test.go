package masters

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
)

// TestOneThreeFiveAndBack: a cluster of one control plane becomes one of three and
// of five, its etcd with it; one of five is lost for good and another machine takes
// its place; and all but the first leave again, while what was written stays.
func TestOneThreeFiveAndBack(t *testing.T) {
	m := three(t)
	doors := m.doors()[:1]
	written := 0
	write := func(of int) {
		t.Helper()
		lab.Until(t, "a write", func() error {
			code, text, err := doors[0].Ask(10*time.Second, http.MethodPost, "/api/v1/namespaces/default/configmaps", fmt.Sprintf(`{"metadata": {"name": "of-%d-%d"}}`, of, written))
			if err != nil || code != http.StatusCreated && code != http.StatusConflict {
				return fmt.Errorf("%d %v %.200s", code, err, text)
			}
			return nil
		})
		written++
		out := m.all[0].Sees([]string{fmt.Sprintf(`of-%d-%d`, of, written-1)}, "get", "configmaps")
		if got := strings.Count(out, "of-"); got != written {
			t.Errorf("with %d members %d of %d ConfigMaps are there:\n%s", of, got, written, out)
		}
		if got := strings.Fields(strings.ReplaceAll(m.members(1), " (learner)", "(learner)")); len(got) != of || strings.Contains(m.members(1), "learner") {
			t.Errorf("etcd's members are %v, want %d with a vote each", got, of)
		}
	}
	write(1)
	start := clock.Now()
	m.join(2, 3)
	write(3)
	t.Logf("from one to three: %.0f s", clock.Since(start).Seconds())
	for _, name := range []string{"m4", "m5"} {
		m.all = append(m.all, m.Computer(name))
	}
	start = clock.Now()
	m.join(4, 5)
	write(5)
	t.Logf("from three to five: %.0f s", clock.Since(start).Seconds())
	m.all[0].Says(m.all[0].Do(append([]string{lab.InBin, "etcdctl"}, append(etcdFlags(), "endpoint", "health", "--cluster", "--command-timeout=30s")...)...),
		"https://100.64.0.2:2379 is healthy", "https://100.64.0.6:2379 is healthy")

	// Two of five stop: the others go on.
	for _, n := range []int{4, 5} {
		m.all[n-1].Sh("mkdir -p /run/away && mv /etc/kubernetes/manifests/*.yaml /run/away/")
		lab.Until(t, "its etcd has ended", func() error {
			if out, err := m.all[n-1].Try("pidof", "etcd", "kube-apiserver"); err == nil {
				return errors.New(out)
			}
			return nil
		})
	}
	write(5)
	for _, n := range []int{4, 5} {
		m.all[n-1].Sh("mv /run/away/*.yaml /etc/kubernetes/manifests/")
	}
	m.all[0].Sees([]string{`etcd-m4 +1/1 +Running`, `etcd-m5 +1/1 +Running`}, "get", "pods", "-n", "kube-system")

	for n := 5; n > 1; n-- {
		c := m.all[n-1]
		c.StopKubelet()
		c.Says(c.Do("kubeadm", "reset", "-f"), "[reset] Removed the etcd member of this machine", fmt.Sprintf(`[reset] Deleted the Node "m%d"`, n))
		write(n - 1)
	}
	t.Logf("back to one: %s; %d ConfigMaps were written and are there", m.members(1), written)
}

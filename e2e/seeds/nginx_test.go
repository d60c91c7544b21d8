package seeds

import (
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
)

// TestThreeMastersBehindNginx is guide 2, on the six machines of its table; then
// each way to lose a master, seen through nginx.
func TestThreeMastersBehindNginx(t *testing.T) {
	several(t)
	need(t, "nginx", "nc", "netstat")
	l := lab.New(t)
	masters := []*lab.Guided{l.Guided("master1", 18), l.Guided("master2", 55), l.Guided("master3", 22)}
	workers := []*lab.Guided{l.Guided("worker1", 16), l.Guided("worker2", 37)}
	lb := l.Guided("master-lb", 157)
	manifest(t, masters[0])
	for _, m := range append(workers, masters...) {
		m.Containers()
	}
	newPlayer(t, append(append(workers, masters...), lb)...).play("2.txt")
	losses(l, masters, lb)
}

// losses loses the master whose controllers act, once in each way.
func losses(t *lab.Lab, masters []*lab.Guided, lb *lab.Guided) {
	t.Helper()
	admin := masters[0].Do("cat", "/etc/kubernetes/admin.conf")
	door := lb.Door(admin)
	w := t.Writes("written", door)
	for _, way := range []struct {
		name           string
		lose, comeBack func(m *lab.Guided)
	}{
		{"killed", func(m *lab.Guided) { m.PowerOff() }, (*lab.Guided).PowerOn},
		{"stopped", func(m *lab.Guided) { m.Run("mkdir -p /root/away; mv /etc/kubernetes/manifests/*.yaml /root/away/") },
			func(m *lab.Guided) { m.Run("mv /root/away/*.yaml /etc/kubernetes/manifests/") }},
		{"cut-off", func(m *lab.Guided) { m.CutOff() }, func(m *lab.Guided) { m.Reconnect() }},
	} {
		victim := acting(t.T, masters, lb)
		before := door.Restarts(victim.Host)
		w.Through(clock.Now())
		start := clock.Now()
		way.lose(victim)
		acts := door.Acts(way.name, start)
		w.Through(clock.Now())
		silent := w.Silence(start, door)
		t.Logf("%s: %s, whose controllers acted: nginx's longest time without an acknowledged write %.1f s; controllers and scheduler have acted after %.1f s",
			way.name, victim.Host, silent.Seconds(), acts.Seconds())
		if silent > lab.Limit || acts > lab.Limit {
			t.Errorf("%s: silent for %s, acts after %s", way.name, silent, acts)
		}
		door.Calm(before, victim.Host)
		start = clock.Now()
		way.comeBack(victim)
		lb.Shows("curl -sk --max-time 5 https://"+victim.Addr.String()+":6443/readyz", "^ok$")
		lb.Shows("kubectl get nodes", "^"+victim.Host+" +Ready ")
		lb.Shows("kubectl get pods -n kube-system --field-selector spec.nodeName="+victim.Host, "(?s)(1/1 +Running.*){5}")
		if way.name != "cut-off" {
			door.Settled(victim.Host, start, way.name == "stopped")
		}
		t.Logf("%s: %s is whole again after %.1f s", way.name, victim.Host, clock.Since(start).Seconds())
	}
	w.Stop()
	for _, m := range masters { // each has all, by a consistent read of its own
		w.Kept(m.Door(admin))
	}
}

// acting is the master whose controller manager has the lease.
func acting(t *testing.T, masters []*lab.Guided, lb *lab.Guided) *lab.Guided {
	t.Helper()
	holder := lb.Shows("kubectl get lease -n kube-system kube-controller-manager -o jsonpath={.spec.holderIdentity}", "^master[123]")
	for _, m := range masters {
		if strings.HasPrefix(holder, m.Host) {
			return m
		}
	}
	t.Fatalf("nobody is %q", holder)
	return nil
}

package seeds

import (
	"fmt"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
)

// TestTwoMastersBehindKeepalived is guide 0, with the address moving.
func TestTwoMastersBehindKeepalived(t *testing.T) {
	several(t)
	need(t, "keepalived", "cfssl", "cfssljson")
	l := lab.New(t)
	m1, m2, node := l.Guided("master1", 22), l.Guided("master2", 21), l.Guided("node3", 142)
	manifest(t, m1)
	p := newPlayer(t, m1, m2, node)
	p.play("0.txt")
	for _, m := range []*lab.Guided{m1, m2, node} {
		m.Containers()
	}
	p.play("0-kubeadm.txt")
	moves(t, m1, m2, node)
	p.play("0-end.txt")
}

// moves ends keepalived where the address is, in an orderly way and not, and
// measures until the API answers at the address again.
func moves(t *testing.T, m1, m2, node *lab.Guided) {
	t.Helper()
	const door = "curl -sk --max-time 1 https://100.64.0.240:6443/healthz"
	node.Shows(door, "^ok$")
	holds := func(m *lab.Guided) {
		t.Helper()
		m.Shows("ip -4 addr show dev eth0", "inet 100.64.0.240/24")
	}
	holds(m1)
	for _, way := range []struct{ how, end string }{
		{"keepalived is stopped", "systemctl stop keepalived"},
		// The keeper first: a service that is killed would be started again.
		{"keepalived is killed with its machine's address gone", "kill -9 $(pidof keepalived); ip addr del 100.64.0.240/24 dev eth0"},
	} {
		start := clock.Now()
		m1.Run(way.end)
		took := lab.Within(t, lab.Limit, way.how, func() error {
			if out, err := m2.Bash("ip -4 addr show dev eth0 | grep 100.64.0.240"); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if out, err := node.Bash(door); err != nil || out != "ok" {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
		t.Logf("%s: the API answers at the address after %.1f s (%.1f s of waiting)", way.how, clock.Since(start).Seconds(), took.Seconds())
		m1.Run("systemctl stop keepalived; systemctl start keepalived")
		holds(m1)
		node.Shows(door, "^ok$")
	}
}

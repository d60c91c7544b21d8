package nodeipam

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func node(name string, ranges ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if len(ranges) > 0 {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = ranges[0], ranges
	}
	return n
}

func TestPoolSpans(t *testing.T) {
	p, err := newPool(prefix("10.244.0.0/16"), 24)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.size {
		if first, last, ok := p.span(p.at(i)); !ok || first != i || last != i {
			t.Fatalf("range %d (%s) spans %d to %d", i, p.at(i), first, last)
		}
	}
	for _, c := range []struct {
		r           string
		first, last int
		ok          bool
	}{
		{"10.244.3.0/24", 3, 3, true},
		{"10.244.4.0/23", 4, 5, true},
		{"10.244.7.128/25", 7, 7, true},
		{"10.0.0.0/8", 0, 255, true},
		{"10.96.0.0/12", 0, 0, false},
	} {
		if first, last, ok := p.span(prefix(c.r)); first != c.first || last != c.last || ok != c.ok {
			t.Errorf("%s: got %d %d %v", c.r, first, last, ok)
		}
	}
}

// However ranges are taken, claimed and given back: none overlaps another's.
func TestPoolNeverHandsOutTwice(t *testing.T) {
	for seed := range uint64(20) {
		r := clock.Rand(seed)
		p, err := newPool(prefix("10.0.0.0/20"), 24)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]netip.Prefix{}
		for step := range 500 {
			name := fmt.Sprintf("node-%d", r.IntN(24))
			if got, ok := has[name]; ok {
				p.release(got, name)
				delete(has, name)
				continue
			}
			if r.IntN(4) == 0 && len(has) > 0 {
				for n, x := range has {
					p.occupy(x, n) // told again
				}
			}
			got, err := p.take(name)
			if err != nil {
				if len(has) < p.size {
					t.Fatalf("seed %d step %d: full with %d of %d", seed, step, len(has), p.size)
				}
				continue
			}
			for other, x := range has {
				if x.Overlaps(got) {
					t.Fatalf("seed %d step %d: %s and %s both have %s", seed, step, name, other, got)
				}
			}
			has[name] = got
		}
	}
}

func TestConfigCheck(t *testing.T) {
	for _, c := range []struct {
		cidrs []netip.Prefix
		good  bool
	}{
		{nil, false},
		{[]netip.Prefix{prefix("10.244.0.0/16")}, true},
		{[]netip.Prefix{prefix("10.244.0.0/16"), prefix("fd00::/56")}, true},
		{[]netip.Prefix{prefix("10.244.0.0/16"), prefix("10.245.0.0/16")}, false},
		{[]netip.Prefix{prefix("10.244.0.0/28")}, false},
		{[]netip.Prefix{prefix("10.0.0.0/7")}, false},
	} {
		cfg := Config{ClusterCIDRs: c.cidrs}
		if err := cfg.Check(); (err == nil) != c.good {
			t.Errorf("%v: %v", c.cidrs, err)
		}
	}
}

func TestNodesGetRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(node("old", "10.244.0.0/24"), node("a"))
		d := controller.WithClient(s)
		c, err := New(d, Config{ClusterCIDRs: []netip.Prefix{prefix("10.244.0.0/23")}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		nodes := client.Of[corev1.Node](s, "")
		has := func(name, want string) {
			t.Helper()
			synctest.Wait()
			n, err := nodes.Get(ctx, name)
			if err != nil || n.Spec.PodCIDR != want {
				t.Errorf("%s has %v, want %s; %v", name, n, want, err)
			}
		}
		has("a", "10.244.1.0/24")
		s.Put(node("b"))
		has("b", "")
		time.Sleep(time.Second)
		synctest.Wait()
		events, _ := client.Of[corev1.Event](s, "").List(ctx, nil)
		if len(events) == 0 || events[0].Reason != "CIDRNotAvailable" || events[0].Message != "Node b status is now: CIDRNotAvailable" {
			t.Errorf("events: %v", events)
		}
		if err := nodes.Delete(ctx, "old", nil); err != nil {
			t.Fatal(err)
		}
		has("b", "10.244.0.0/24")
		has("a", "10.244.1.0/24")
		stop()
		_ = g.Wait()
	})
}

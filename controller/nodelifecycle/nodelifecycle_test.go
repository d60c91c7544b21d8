package nodelifecycle

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/pod"
)

func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	}
	return n
}

func show(ts []corev1.Taint) string {
	var out []string
	for _, t := range ts {
		out = append(out, strings.TrimPrefix(t.Key, "node.kubernetes.io/")+":"+string(t.Effect))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestTaints(t *testing.T) {
	own := corev1.Taint{Key: "example.com/mine", Effect: corev1.TaintEffectNoExecute}
	born := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for name, c := range map[string]struct {
		ready corev1.ConditionStatus
		has   []corev1.Taint
		e     eviction
		edit  func(*corev1.Node)
		want  string
	}{
		"ready":             {ready: corev1.ConditionTrue, has: []corev1.Taint{born, own}, want: "example.com/mine:NoExecute"},
		"not ready":         {ready: corev1.ConditionFalse, want: "not-ready:NoExecute not-ready:NoSchedule"},
		"not ready, wait":   {ready: corev1.ConditionFalse, e: waitTaint, want: "not-ready:NoSchedule"},
		"unknown":           {ready: corev1.ConditionUnknown, has: []corev1.Taint{born}, want: "unreachable:NoExecute unreachable:NoSchedule"},
		"unknown, all fail": {ready: corev1.ConditionUnknown, e: neverTaint, has: []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}}, want: "unreachable:NoSchedule"},
		"has yet to tell":   {has: []corev1.Taint{born}, want: "not-ready:NoSchedule"},
		"pressure and cordon": {ready: corev1.ConditionTrue, want: "memory-pressure:NoSchedule unschedulable:NoSchedule", edit: func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue})
		}},
	} {
		n := node("a", c.ready)
		n.Spec.Taints = c.has
		if c.edit != nil {
			c.edit(n)
		}
		got := taints(n, c.e, time.Now())
		if show(got) != c.want {
			t.Errorf("%s: %s, want %s", name, show(got), c.want)
		}
		n.Spec.Taints = got
		if again := taints(n, c.e, time.Now()); show(again) != show(got) {
			t.Errorf("%s: not stable: %s", name, show(again))
		}
	}
}

func TestZoneSpeed(t *testing.T) {
	for _, c := range []struct {
		z    zone
		want float64
	}{{zone{10, 0}, .1}, {zone{1, 2}, .1}, {zone{2, 8}, 0}, {zone{20, 80}, .01}, {zone{0, 5}, .1}, {zone{9, 3}, .1}} {
		if got := c.z.speed(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.z, got, c.want)
		}
	}
}

func lease(name string, at time.Time) *coordinationv1.Lease {
	m := metav1.NewMicroTime(at)
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-node-lease", Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &m}}
}

func TestSilentNodeBecomesUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: corev1.PodSpec{NodeName: "silent"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
		s := fake.New(node("silent", corev1.ConditionTrue), node("alive", corev1.ConditionTrue), lease("alive", time.Now()), lease("silent", time.Now()), p)
		d := controller.WithClient(s)
		c, err := New(d, Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		beat := func(total time.Duration, names ...string) {
			for range int(total / (5 * time.Second)) {
				time.Sleep(5 * time.Second)
				for _, n := range names {
					s.Put(lease(n, time.Now()))
				}
			}
			synctest.Wait()
		}
		nodes := client.Of[corev1.Node](s, "")
		is := func(when, name string, ready corev1.ConditionStatus, want string) {
			t.Helper()
			n, err := nodes.Get(ctx, name)
			if err != nil || readiness(n) != ready || show(n.Spec.Taints) != want {
				t.Errorf("%s: %s is %v with %s; %v", when, name, readiness(n), show(n.Spec.Taints), err)
			}
		}
		beat(45*time.Second, "alive")
		is("within the grace", "silent", corev1.ConditionTrue, "")
		beat(20*time.Second, "alive")
		is("after the grace", "silent", corev1.ConditionUnknown, "unreachable:NoExecute unreachable:NoSchedule")
		is("after the grace", "alive", corev1.ConditionTrue, "")
		n, _ := nodes.Get(ctx, "silent")
		if r := condition(n, corev1.NodeReady); r.Reason != "NodeStatusUnknown" || r.Message != "Kubelet stopped posting node status." {
			t.Errorf("ready: %+v", r)
		}
		if m := condition(n, corev1.NodeMemoryPressure); m == nil || m.Reason != "NodeStatusNeverUpdated" {
			t.Errorf("memory: %+v", m)
		}
		if q, _ := client.Of[corev1.Pod](s, "a").Get(ctx, "p"); pod.Ready(q) {
			t.Error("the pod still counts as ready")
		}
		back := n.DeepCopy()
		back.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
		if _, err := nodes.UpdateStatus(ctx, back); err != nil {
			t.Fatal(err)
		}
		beat(10*time.Second, "alive", "silent")
		is("back", "silent", corev1.ConditionTrue, "")
		beat(70 * time.Second)
		is("all silent", "silent", corev1.ConditionUnknown, "unreachable:NoSchedule")
		is("all silent", "alive", corev1.ConditionUnknown, "unreachable:NoSchedule")
		stop()
		_ = g.Wait()
	})
}

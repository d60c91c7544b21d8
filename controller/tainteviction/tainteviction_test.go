package tainteviction

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

var gone = corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}

func tolerant(name string, seconds int64) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: corev1.PodSpec{NodeName: "n"}}
	t := corev1.Toleration{Key: gone.Key, Operator: corev1.TolerationOpExists, Effect: gone.Effect}
	if seconds > 0 {
		t.TolerationSeconds = &seconds
	}
	if seconds != 0 {
		p.Spec.Tolerations = []corev1.Toleration{t}
	}
	return p
}

func TestPatience(t *testing.T) {
	other := corev1.Taint{Key: "x", Value: "v", Effect: corev1.TaintEffectNoExecute}
	both := tolerant("p", 300)
	both.Spec.Tolerations = append(both.Spec.Tolerations, corev1.Toleration{Key: "x", Value: "v"})
	for name, c := range map[string]struct {
		p       *corev1.Pod
		taints  []corev1.Taint
		d       time.Duration
		forever bool
	}{
		"no toleration":   {tolerant("p", 0), []corev1.Taint{gone}, 0, false},
		"limited":         {tolerant("p", 300), []corev1.Taint{gone}, 300 * time.Second, false},
		"unlimited":       {tolerant("p", -1), []corev1.Taint{gone}, 0, true},
		"one of two":      {tolerant("p", 300), []corev1.Taint{gone, other}, 0, false},
		"both":            {both, []corev1.Taint{gone, other}, 300 * time.Second, false},
		"value is not it": {both, []corev1.Taint{{Key: "x", Value: "w", Effect: corev1.TaintEffectNoExecute}}, 0, false},
	} {
		if d, forever := patience(c.p, c.taints); d != c.d || forever != c.forever {
			t.Errorf("%s: %s %v", name, d, forever)
		}
	}
}

func TestEvictedWhenTolerationRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{gone}}}
		s := fake.New(n, tolerant("never", 0), tolerant("soon", 300), tolerant("ever", -1))
		d := controller.WithClient(s)
		c := New(d)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		left := func(when time.Duration, want int) {
			t.Helper()
			time.Sleep(when)
			synctest.Wait()
			if pods, _ := client.Of[corev1.Pod](s, "a").List(ctx, nil); len(pods) != want {
				t.Errorf("after %s: %d pods", when, len(pods))
			}
		}
		left(time.Second, 2)
		left(290*time.Second, 2)
		calm := n.DeepCopy()
		calm.Spec.Taints = nil
		s.Put(calm)
		left(20*time.Second, 2) // the taint is gone: so is the deadline
		s.Put(n)
		left(290*time.Second, 2)
		left(20*time.Second, 1)
		stop()
		_ = g.Wait()
	})
}

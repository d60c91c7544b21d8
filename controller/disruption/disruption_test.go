package disruption

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func budget(min, max *intstr.IntOrString) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "ns", Generation: 3},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: min, MaxUnavailable: max, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}
}

func pods(ready, unready int) []*corev1.Pod {
	var out []*corev1.Pod
	for i := range ready + unready {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "ns", Labels: map[string]string{"app": "a"}}}
		if i < ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		out = append(out, p)
	}
	return out
}

func is(v any) *intstr.IntOrString {
	var x intstr.IntOrString
	switch v := v.(type) {
	case int:
		x = intstr.FromInt32(int32(v))
	case string:
		x = intstr.FromString(v)
	}
	return &x
}

func TestStatus(t *testing.T) {
	of10 := func(*corev1.Pod) (string, int32, bool) { return "rs", 10, true }
	nobody := func(*corev1.Pod) (string, int32, bool) { return "", 0, false }
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	evicting := budget(is(1), nil)
	evicting.Status.DisruptedPods = map[string]metav1.Time{"p0": metav1.NewTime(now.Add(-time.Minute)), "p1": metav1.NewTime(now.Add(-time.Hour))}
	for name, tc := range map[string]struct {
		b                               *policyv1.PodDisruptionBudget
		pods                            []*corev1.Pod
		of                              scale
		healthy, wanted, count, allowed int32
	}{
		"min 2 of 3":             {budget(is(2), nil), pods(3, 0), nobody, 3, 2, 3, 1},
		"min 2, one unready":     {budget(is(2), nil), pods(2, 1), nobody, 2, 2, 3, 0},
		"min 50%":                {budget(is("50%"), nil), pods(9, 1), of10, 9, 5, 10, 4},
		"max 1":                  {budget(nil, is(1)), pods(10, 0), of10, 10, 9, 10, 1},
		"max 25%":                {budget(nil, is("25%")), pods(8, 2), of10, 8, 7, 10, 1},
		"max without controller": {budget(nil, is(1)), pods(3, 0), nobody, 3, 0, 0, 0},
		"none":                   {budget(is(1), nil), nil, nobody, 0, 1, 0, 0},
		"one being evicted":      {evicting, pods(3, 0), nobody, 2, 1, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := status(tc.b, tc.pods, tc.of, now)
			if s.CurrentHealthy != tc.healthy || s.DesiredHealthy != tc.wanted || s.ExpectedPods != tc.count || s.DisruptionsAllowed != tc.allowed || s.ObservedGeneration != 3 {
				t.Errorf("healthy %d of %d wanted, %d expected, %d allowed; want %d %d %d %d", s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed, tc.healthy, tc.wanted, tc.count, tc.allowed)
			}
			if want := tc.allowed > 0; (s.Conditions[0].Status == metav1.ConditionTrue) != want || s.Conditions[0].Type != policyv1.DisruptionAllowedCondition {
				t.Errorf("condition %+v", s.Conditions[0])
			}
		})
	}
}

// TestFollows counts pods of a Deployment through its ReplicaSet.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := int32(4)
		dep := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns", UID: "d"}, Spec: appsv1.DeploymentSpec{Replicas: &n}}
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "ns", UID: "r", OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(dep, appsv1.SchemeGroupVersion.WithKind("Deployment"))}}, Spec: appsv1.ReplicaSetSpec{Replicas: &n}}
		srv := fake.New(dep, rs, budget(nil, is("50%")))
		for _, p := range pods(4, 0) {
			p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
			srv.Put(p)
		}
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		allowed := func() int32 {
			clock.Sleep(t.Context(), 5*time.Second)
			b, err := client.Of[policyv1.PodDisruptionBudget](srv, "ns").Get(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			return b.Status.DisruptionsAllowed
		}
		if got := allowed(); got != 2 {
			t.Errorf("%d may go, want 2", got)
		}
		client.Of[corev1.Pod](srv, "ns").Delete(t.Context(), "p0", nil)
		if got := allowed(); got != 1 {
			t.Errorf("after one went %d may go, want 1", got)
		}
	})
}

func TestSparedPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pods(1, 0)[0]
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(clock.Now())})
		srv := fake.New(p)
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		for _, c := range []struct {
			wait time.Duration
			want corev1.ConditionStatus
		}{{time.Minute, corev1.ConditionTrue}, {2 * time.Minute, corev1.ConditionFalse}} {
			clock.Sleep(t.Context(), c.wait)
			synctest.Wait()
			now, _ := client.Of[corev1.Pod](srv, "ns").Get(t.Context(), p.Name)
			if got := now.Status.Conditions[1]; got.Type != corev1.DisruptionTarget || got.Status != c.want {
				t.Errorf("%+v, want %s", got, c.want)
			}
		}
	})
}

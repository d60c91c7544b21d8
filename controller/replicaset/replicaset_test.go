package replicaset

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/pod"
)

func set(name string, n int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name), Generation: 1},
		Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
}

func start(t *testing.T, srv *fake.Server) {
	t.Helper()
	d := controller.WithClient(srv)
	c := New(d)
	g := run.New(t.Context())
	g.Go("mirrors", d.Mirrors.Run)
	g.Go("loop", c.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
}

func pods(t *testing.T, srv *fake.Server) []*corev1.Pod {
	t.Helper()
	list, err := client.Of[corev1.Pod](srv, "ns").List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestSafetyAndLiveness drives a set through a random history. Safety: there is
// never an active pod more than the largest wish since the last rest. Liveness:
// when nothing happens any more, there are as many pods as wished.
func TestSafetyAndLiveness(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := clock.Rand(seed)
				srv := fake.New(set("a", 3))
				most := int32(3)
				start(t, srv)
				sets := client.Of[appsv1.ReplicaSet](srv, "ns")
				for range 60 {
					switch rng.IntN(5) {
					case 0:
						rs, _ := sets.Get(t.Context(), "a")
						c := rs.DeepCopy()
						n := int32(rng.IntN(12))
						c.Spec.Replicas = &n
						most = max(most, n)
						if _, err := sets.Update(t.Context(), c); err != nil && !isConflict(err) {
							t.Fatal(err)
						}
					case 1, 2:
						if all := pods(t, srv); len(all) > 0 {
							client.Of[corev1.Pod](srv, "ns").Delete(t.Context(), all[rng.IntN(len(all))].Name, nil)
						}
					case 3:
						if all := pods(t, srv); len(all) > 0 {
							c := all[rng.IntN(len(all))].DeepCopy()
							c.Status.Phase = corev1.PodFailed
							client.Of[corev1.Pod](srv, "ns").UpdateStatus(t.Context(), c)
						}
					case 4:
						srv.Expire() // every watch breaks
					}
					if rng.IntN(3) == 0 {
						clock.Sleep(t.Context(), time.Duration(rng.IntN(4000))*time.Millisecond)
					} else {
						synctest.Wait()
					}
					n := int32(0)
					for _, p := range pods(t, srv) {
						if pod.Active(p) {
							n++
						}
					}
					if n > most {
						t.Fatalf("%d active pods, never wished for more than %d", n, most)
					}
				}
				clock.Sleep(t.Context(), 5*time.Minute)
				rs, err := sets.Get(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, p := range pods(t, srv) {
					if pod.Active(p) {
						n++
					}
				}
				if n != int(*rs.Spec.Replicas) || rs.Status.Replicas != int32(n) || rs.Status.ObservedGeneration != rs.Generation {
					t.Errorf("at rest %d active pods and status %+v, want %d", n, rs.Status, *rs.Spec.Replicas)
				}
			})
		})
	}
}

func isConflict(err error) bool {
	var s interface{ Status() metav1.Status }
	return errors.As(err, &s) && s.Status().Reason == metav1.StatusReasonConflict
}

// TestAdoptAndRelease follows labels.
func TestAdoptAndRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lone := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "lone", Namespace: "ns", Labels: map[string]string{"app": "a"}}}
		other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "ns", Labels: map[string]string{"app": "a"},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set("b", 1), replicaSets.kind)}}}
		srv := fake.New(lone, other, set("a", 2))
		start(t, srv)
		clock.Sleep(t.Context(), time.Second)
		typed := client.Of[corev1.Pod](srv, "ns")
		p, _ := typed.Get(t.Context(), "lone")
		if ref := metav1.GetControllerOf(p); ref == nil || ref.UID != "a" {
			t.Fatalf("the lone pod's controller is %v, want the set", ref)
		}
		if n := len(pods(t, srv)); n != 3 {
			t.Fatalf("%d pods, want the lone one, another's, and one new", n)
		}
		c := p.DeepCopy()
		c.Labels = map[string]string{"app": "elsewhere"}
		if _, err := typed.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		clock.Sleep(t.Context(), 5*time.Second)
		p, _ = typed.Get(t.Context(), "lone")
		if ref := metav1.GetControllerOf(p); ref != nil {
			t.Errorf("the relabelled pod is still controlled by %v", ref)
		}
		if n := len(pods(t, srv)); n != 4 {
			t.Errorf("%d pods, want one more in place of the released", n)
		}
	})
}

// TestFailureIsTold checks the condition and event of a namespace at its quota.
func TestFailureIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(set("a", 5))
		var full atomic.Bool
		var tries atomic.Int32
		full.Store(true)
		srv.Hook = func(c fake.Call) error {
			if full.Load() && c.Verb == "create" && c.Resource.Resource == "pods" {
				tries.Add(1)
				return errors.New("exceeded quota")
			}
			return nil
		}
		start(t, srv)
		clock.Sleep(t.Context(), time.Second)
		rs, _ := client.Of[appsv1.ReplicaSet](srv, "ns").Get(t.Context(), "a")
		if len(rs.Status.Conditions) != 1 || rs.Status.Conditions[0].Reason != "FailedCreate" || rs.Status.Conditions[0].Message != "exceeded quota" {
			t.Errorf("conditions %+v, want ReplicaFailure FailedCreate", rs.Status.Conditions)
		}
		if n := tries.Load(); n > 12 {
			t.Errorf("%d refused creations in a second, want one per try and tries further apart", n)
		}
		full.Store(false)
		clock.Sleep(t.Context(), 10*time.Second)
		rs, _ = client.Of[appsv1.ReplicaSet](srv, "ns").Get(t.Context(), "a")
		if len(rs.Status.Conditions) != 0 || rs.Status.Replicas != 5 {
			t.Errorf("after there was room: %+v, want 5 replicas and no condition", rs.Status)
		}
		events, _ := client.Of[corev1.Event](srv, "ns").List(t.Context(), nil)
		reasons := map[string]int32{}
		for _, e := range events {
			reasons[e.Reason] += e.Count
		}
		if reasons["SuccessfulCreate"] != 5 || reasons["FailedCreate"] == 0 {
			t.Errorf("events %v, want 5 SuccessfulCreate and some FailedCreate", reasons)
		}
	})
}

// TestRanked checks who goes first.
func TestRanked(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	p := func(name string, edit func(*corev1.Pod)) *corev1.Pod {
		x := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
			Spec:   corev1.PodSpec{NodeName: "n"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}}}
		edit(x)
		return x
	}
	in := []*corev1.Pod{
		p("old", func(*corev1.Pod) {}),
		p("young", func(x *corev1.Pod) { x.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second)) }),
		p("restarted", func(x *corev1.Pod) {
			x.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 4}}
		}),
		p("crowded", func(x *corev1.Pod) { x.Spec.NodeName = "crowd" }),
		p("cheap", func(x *corev1.Pod) { x.Annotations = map[string]string{corev1.PodDeletionCost: "-5"} }),
		p("unready", func(x *corev1.Pod) { x.Status.Conditions = nil }),
		p("pending", func(x *corev1.Pod) { x.Status.Phase, x.Status.Conditions = corev1.PodPending, nil }),
		p("nowhere", func(x *corev1.Pod) { x.Spec.NodeName, x.Status = "", corev1.PodStatus{Phase: corev1.PodPending} }),
	}
	var got []string
	for _, x := range ranked(in, map[string]int{"crowd": 3, "n": 1}, now) {
		got = append(got, x.Name)
	}
	if want := []string{"nowhere", "pending", "unready", "cheap", "crowded", "young", "restarted", "old"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestReplicationController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		labels := map[string]string{"app": "rc"}
		n := int32(3)
		srv := fake.New(&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc", Namespace: "ns", UID: "rc", Generation: 1},
			Spec: corev1.ReplicationControllerSpec{Replicas: &n, Selector: labels, Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}}}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "orphan", Namespace: "ns", Labels: labels}})
		d := controller.WithClient(srv)
		c := NewReplication(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, p := range pods(t, srv) {
			if ref := metav1.GetControllerOf(p); ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" || ref.UID != "rc" {
				t.Errorf("%s belongs to %v", p.Name, ref)
			}
		}
		rc, err := client.Of[corev1.ReplicationController](srv, "ns").Get(t.Context(), "rc")
		if err != nil || rc.Status.Replicas != 3 || rc.Status.FullyLabeledReplicas != 3 || rc.Status.ObservedGeneration != 1 || len(pods(t, srv)) != 3 {
			t.Errorf("%d pods, status %+v, %v", len(pods(t, srv)), rc.Status, err)
		}
		srv.Hook = func(c fake.Call) error {
			if c.Verb == "create" && c.Resource.Resource == "pods" {
				return errors.New("exceeded quota")
			}
			return nil
		}
		rc = rc.DeepCopy()
		*rc.Spec.Replicas = 4
		if _, err := client.Of[corev1.ReplicationController](srv, "ns").Update(t.Context(), rc); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		rc, _ = client.Of[corev1.ReplicationController](srv, "ns").Get(t.Context(), "rc")
		if c := rc.Status.Conditions; len(c) != 1 || c[0].Type != corev1.ReplicationControllerReplicaFailure || c[0].Reason != "FailedCreate" {
			t.Errorf("conditions %+v", c)
		}
		events, _ := client.Of[corev1.Event](srv, "ns").List(t.Context(), nil)
		for _, e := range events {
			if e.InvolvedObject.Kind != "ReplicationController" || e.Source.Component != "replication-controller" {
				t.Errorf("event %+v", e)
			}
		}
	})
}

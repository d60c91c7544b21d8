package deployment

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func deployment(n int32, image string) *appsv1.Deployment {
	surge, unavailable, limit, deadline := intstr.FromString("25%"), intstr.FromString("25%"), int32(10), int32(600)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "ns", UID: "d", Generation: 1, Annotations: map[string]string{"team": "a"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, RevisionHistoryLimit: &limit, ProgressDeadlineSeconds: &deadline,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}},
		},
	}
}

// world is a server with a deployment loop and sets that do as told, one pod a second.
type world struct {
	*testing.T
	*fake.Server
	totals, availables []int32 // seen over time
}

func newWorld(t *testing.T, d *appsv1.Deployment) *world {
	t.Helper()
	w := &world{T: t, Server: fake.New(d)}
	deps := controller.WithClient(w)
	c := New(deps)
	g := run.New(t.Context())
	g.Go("mirrors", deps.Mirrors.Run)
	g.Go("loop", c.Run)
	t.Cleanup(func() { g.Stop(); g.Wait() })
	return w
}

// pass lets seconds go by, in each of which every set gets or loses one pod.
// Pods of image "bad" never become ready.
func (w *world) pass(seconds int) {
	w.Helper()
	for range seconds {
		clock.Sleep(w.Context(), time.Second)
		var total, available int32
		for _, rs := range w.sets() {
			c := rs.DeepCopy()
			want, have := *rs.Spec.Replicas, rs.Status.Replicas
			switch {
			case have < want:
				have++
			case have > want:
				have--
			}
			c.Status.Replicas, c.Status.ObservedGeneration = have, rs.Generation
			c.Status.ReadyReplicas, c.Status.AvailableReplicas = have, have
			if rs.Spec.Template.Spec.Containers[0].Image == "bad" {
				c.Status.ReadyReplicas, c.Status.AvailableReplicas = 0, 0
			}
			if _, err := client.Of[appsv1.ReplicaSet](w, "ns").UpdateStatus(w.Context(), c); err != nil && !strings.Contains(err.Error(), "modified") {
				w.Fatal(err)
			}
			total += have
			available += c.Status.AvailableReplicas
		}
		w.totals, w.availables = append(w.totals, total), append(w.availables, available)
	}
	synctest.Wait()
}

func (w *world) sets() []*appsv1.ReplicaSet {
	w.Helper()
	list, err := client.Of[appsv1.ReplicaSet](w, "ns").List(w.Context(), nil)
	if err != nil {
		w.Fatal(err)
	}
	slices.SortFunc(list, func(a, b *appsv1.ReplicaSet) int {
		return strings.Compare(a.Annotations[annRevision], b.Annotations[annRevision])
	})
	return list
}

func (w *world) get() *appsv1.Deployment {
	w.Helper()
	d, err := client.Of[appsv1.Deployment](w, "ns").Get(w.Context(), "web")
	if err != nil {
		w.Fatal(err)
	}
	return d
}

func (w *world) edit(fn func(*appsv1.Deployment)) {
	w.Helper()
	c := w.get().DeepCopy()
	fn(c)
	if _, err := client.Of[appsv1.Deployment](w, "ns").Update(w.Context(), c); err != nil {
		w.Fatal(err)
	}
}

func (w *world) image(name string) {
	w.Helper()
	w.edit(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = name })
}

// sizes writes revision:size of every set.
func (w *world) sizes() string {
	var out []string
	for _, rs := range w.sets() {
		out = append(out, fmt.Sprintf("%s:%d", rs.Annotations[annRevision], size(rs)))
	}
	return strings.Join(out, " ")
}

func (w *world) condition(kind appsv1.DeploymentConditionType) string {
	s := w.get().Status
	c := condition(&s, kind)
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason
}

// TestRollingUpdate is the life of a Deployment as kubectl rollout shows it.
func TestRollingUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deployment(10, "one"))
		w.pass(15)
		if got := w.sizes(); got != "1:10" {
			t.Fatalf("sets after creation %q, want 1:10", got)
		}
		rs := w.sets()[0]
		h := rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		if rs.Name != "web-"+h || rs.Spec.Selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] != h || rs.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != h || h == "" {
			t.Errorf("set %s with labels %v: the hash is not everywhere", rs.Name, rs.Labels)
		}
		if rs.Annotations["team"] != "a" || rs.Annotations[annDesired] != "10" || rs.Annotations[annMax] != "13" {
			t.Errorf("annotations of the set: %v", rs.Annotations)
		}
		if got := w.condition(appsv1.DeploymentProgressing); got != "True NewReplicaSetAvailable" {
			t.Errorf("Progressing %q, want True NewReplicaSetAvailable", got)
		}
		w.totals, w.availables = nil, nil
		w.image("two")
		w.pass(40)
		if got := w.sizes(); got != "1:0 2:10" {
			t.Errorf("sets after the rollout %q, want 1:0 2:10", got)
		}
		if slices.Max(w.totals) > 13 || slices.Min(w.availables) < 8 {
			t.Errorf("at most %d pods and at least %d available during the rollout, want ≤ 13 and ≥ 8", slices.Max(w.totals), slices.Min(w.availables))
		}
		d := w.get()
		if d.Annotations[annRevision] != "2" || d.Status.UpdatedReplicas != 10 || d.Status.AvailableReplicas != 10 || d.Status.ObservedGeneration != d.Generation {
			t.Errorf("deployment %v %+v", d.Annotations, d.Status)
		}
		w.image("one") // back, as rollout undo does
		w.pass(40)
		if got := w.sizes(); got != "2:0 3:10" {
			t.Errorf("sets after going back %q, want 2:0 3:10", got)
		}
		if got := w.sets()[1].Annotations[annHistory]; got != "1" {
			t.Errorf("revision history %q, want 1", got)
		}
		events, _ := client.Of[corev1.Event](w, "ns").List(t.Context(), nil)
		if !slices.ContainsFunc(events, func(e *corev1.Event) bool {
			return e.Reason == "ScalingReplicaSet" && e.Message == "Scaled up replica set "+rs.Name+" from 0 to 10"
		}) {
			t.Errorf("no event of the first scaling up")
		}
	})
}

// TestStuckRollout passes its deadline and recovers.
func TestStuckRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, deployment(4, "one"))
		w.pass(10)
		w.image("bad")
		w.pass(500)
		if got := w.condition(appsv1.DeploymentProgressing); got != "True ReplicaSetUpdated" {
			t.Errorf("before the deadline Progressing is %q", got)
		}
		w.pass(200)
		if got := w.condition(appsv1.DeploymentProgressing); got != "False ProgressDeadlineExceeded" {
			t.Errorf("after the deadline Progressing is %q, want False ProgressDeadlineExceeded", got)
		}
		if got := w.sizes(); got != "1:3 2:2" {
			t.Errorf("sets of a stuck rollout %q, want 1:3 2:2", got)
		}
		w.image("one")
		w.pass(20)
		if got := w.sizes() + " " + w.condition(appsv1.DeploymentProgressing); got != "2:0 3:4 True NewReplicaSetAvailable" {
			t.Errorf("after going back %q", got)
		}
	})
}

// TestScaleDuringRollout spreads a new size over both sets, as upstream's
// documentation computes it: 10 replicas, surge 3, unavailable 2, then 15.
func TestScaleDuringRollout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(10, "one")
		surge, unavailable := intstr.FromInt32(3), intstr.FromInt32(2)
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}
		w := newWorld(t, d)
		w.pass(15)
		w.image("bad")
		w.pass(15)
		if got := w.sizes(); got != "1:8 2:5" {
			t.Fatalf("before scaling %q, want 1:8 2:5", got)
		}
		w.edit(func(d *appsv1.Deployment) { n := int32(15); d.Spec.Replicas = &n })
		w.pass(20)
		if got := w.sizes(); got != "1:11 2:7" {
			t.Errorf("after scaling %q, want 1:11 2:7", got)
		}
	})
}

// TestRecreate never runs both templates at once.
func TestRecreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(3, "one")
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		w := newWorld(t, d)
		w.pass(5)
		old := w.sets()[0]
		w.image("two")
		if synctest.Wait(); w.sizes() != "1:0" {
			t.Errorf("while the old set tells of pods that the mirror does not show %q, want 1:0 alone", w.sizes())
		}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(old, setKind)}}}
		w.Put(p)
		w.pass(10)
		if got := w.sizes(); got != "1:0" {
			t.Errorf("while an old pod is there %q, want 1:0 alone", got)
		}
		if err := client.Of[corev1.Pod](w, "ns").Delete(t.Context(), "p", nil); err != nil {
			t.Fatal(err)
		}
		w.pass(10)
		if got := w.sizes(); got != "1:0 2:3" {
			t.Errorf("after it is gone %q, want 1:0 2:3", got)
		}
	})
}

// TestPauseHistoryRollback covers pausing, the history limit and the deprecated rollback.
func TestPauseHistoryRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(2, "one")
		limit := int32(1)
		d.Spec.RevisionHistoryLimit = &limit
		w := newWorld(t, d)
		w.pass(5)
		w.edit(func(d *appsv1.Deployment) { d.Spec.Paused = true })
		w.pass(2)
		w.image("two")
		w.pass(5)
		if got := w.sizes() + " " + w.condition(appsv1.DeploymentProgressing); got != "1:2 Unknown DeploymentPaused" {
			t.Errorf("paused: %q, want 1:2 Unknown DeploymentPaused", got)
		}
		w.edit(func(d *appsv1.Deployment) { d.Spec.Paused = false })
		w.pass(20)
		w.image("three")
		w.pass(20)
		if got := w.sizes(); got != "2:0 3:2" {
			t.Errorf("with a history of one: %q, want 2:0 3:2", got)
		}
		w.edit(func(d *appsv1.Deployment) { d.Annotations[annRollback] = "0" })
		w.pass(20)
		if got := w.get().Spec.Template.Spec.Containers[0].Image + " " + w.sizes(); got != "two 3:0 4:2" {
			t.Errorf("after the rollback: %q, want two 3:0 4:2", got)
		}
		if _, left := w.get().Annotations[annRollback]; left {
			t.Error("the rollback annotation is still there")
		}
	})
}

// TestHashCollision takes another name when the first is another's.
func TestHashCollision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deployment(1, "one")
		taken := "web-" + hash(&d.Spec.Template, nil)
		other := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: taken, Namespace: "ns"}, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), Selector: &metav1.LabelSelector{}}}
		other.Spec.Template.Spec.Containers = []corev1.Container{{Name: "x", Image: "x"}}
		w := &world{T: t, Server: fake.New(other, d)}
		deps := controller.WithClient(w)
		c := New(deps)
		g := run.New(t.Context())
		g.Go("mirrors", deps.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		clock.Sleep(t.Context(), 5*time.Second)
		got := w.get()
		if got.Status.CollisionCount == nil || *got.Status.CollisionCount != 1 {
			t.Fatalf("collision count %v, want 1", got.Status.CollisionCount)
		}
		if _, err := client.Of[appsv1.ReplicaSet](w, "ns").Get(t.Context(), "web-"+hash(&d.Spec.Template, got.Status.CollisionCount)); err != nil {
			t.Error(err)
		}
	})
}

package statefulset

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func set(n int32, edit func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	l := map[string]string{"set": "s"}
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &n, ServiceName: "svc", Selector: &metav1.LabelSelector{MatchLabels: l},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		Template:             corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
	}}
	if edit != nil {
		edit(s)
	}
	return s
}

func TestOrdinals(t *testing.T) {
	s := set(1, nil)
	for name, want := range map[string]int{"s-0": 0, "s-12": 12, "s-01": -1, "s-x": -1, "t-1": -1, "s": -1, "s--1": -1} {
		if got := ordinalOf(s, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}); got != want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestPodFor(t *testing.T) {
	s := set(1, nil)
	p := podFor(s, &s.Spec.Template, "rev", 3)
	if p.Name != "s-3" || p.GenerateName != "" || p.Spec.Hostname != "s-3" || p.Spec.Subdomain != "svc" || p.Labels["apps.kubernetes.io/pod-index"] != "3" ||
		p.Labels["statefulset.kubernetes.io/pod-name"] != "s-3" || p.Labels["controller-revision-hash"] != "rev" {
		t.Errorf("pod: %+v", p)
	}
	if v := p.Spec.Volumes; len(v) != 1 || v[0].PersistentVolumeClaim.ClaimName != "data-s-3" {
		t.Errorf("volumes: %+v", v)
	}
}

// world is a cluster whose pods become ready after a second, in which it notes
// what happened.
type world struct {
	*fake.Server
	t      *testing.T
	ctx    context.Context
	broken string // an image that never becomes ready
	log    []string
	low    int
}

func (w *world) pods() []*corev1.Pod {
	l, err := client.Of[corev1.Pod](w, "a").List(w.ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) live(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		synctest.Wait()
		for _, c := range w.Calls() {
			if c.Resource.Resource == "pods" && (c.Verb == "create" || c.Verb == "delete") {
				w.log = append(w.log, c.Verb+" "+c.Key.Name)
			}
		}
		ready := 0
		for _, p := range w.pods() {
			if len(p.Status.Conditions) > 0 {
				ready++
			} else if p.Spec.Containers[0].Image != w.broken {
				q := p.DeepCopy()
				q.Status.Phase = corev1.PodRunning
				q.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
				w.Put(q)
			}
		}
		w.low = min(w.low, ready)
	}
	synctest.Wait()
}

func (w *world) change(edit func(*appsv1.StatefulSet)) {
	w.t.Helper()
	sets := client.Of[appsv1.StatefulSet](w, "a")
	s, err := sets.Get(w.ctx, "s")
	if err != nil {
		w.t.Fatal(err)
	}
	c := s.DeepCopy()
	edit(c)
	if _, err := sets.Update(w.ctx, c); err != nil {
		w.t.Fatal(err)
	}
	w.log = nil
}

func (w *world) is(when, want string) {
	w.t.Helper()
	var out []string
	for _, p := range w.pods() {
		out = append(out, p.Name+"="+p.Spec.Containers[0].Image)
	}
	slices.Sort(out)
	if got := strings.Join(out, " "); got != want {
		w.t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func (w *world) did(when, want string) {
	w.t.Helper()
	if got := strings.Join(w.log, ", "); got != want {
		w.t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func play(t *testing.T, s *appsv1.StatefulSet, script func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{Server: fake.New(s), t: t}
		d := controller.WithClient(w)
		c := New(d)
		ctx, stop := context.WithCancel(t.Context())
		w.ctx = ctx
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		script(w)
		stop()
		_ = g.Wait()
	})
}

func image(name string) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = name }
}

func scale(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Replicas = &n }
}

func TestInOrder(t *testing.T) {
	play(t, set(3, nil), func(w *world) {
		w.broken = "one"
		w.live(5)
		w.is("the first is not ready", "s-0=one")
		w.broken = ""
		w.live(8)
		w.is("all", "s-0=one s-1=one s-2=one")
		claims, _ := client.Of[corev1.PersistentVolumeClaim](w, "a").List(w.ctx, nil)
		if len(claims) != 3 || claims[0].Name != "data-s-0" {
			t.Errorf("claims: %v", claims)
		}
		w.change(scale(1))
		w.live(4)
		w.did("scaled down", "delete s-2, delete s-1")
		claims, _ = client.Of[corev1.PersistentVolumeClaim](w, "a").List(w.ctx, nil)
		if len(claims) != 3 {
			t.Errorf("claims did not stay: %v", claims)
		}
		w.change(scale(2))
		w.live(4)
		w.is("scaled up", "s-0=one s-1=one")
		s, _ := client.Of[appsv1.StatefulSet](w, "a").Get(w.ctx, "s")
		if st := s.Status; st.Replicas != 2 || st.ReadyReplicas != 2 || st.AvailableReplicas != 2 || st.CurrentReplicas != 2 || st.UpdatedReplicas != 2 || st.CurrentRevision != st.UpdateRevision {
			t.Errorf("status: %+v", st)
		}
	})
}

func TestParallel(t *testing.T) {
	play(t, set(3, func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }), func(w *world) {
		w.live(1)
		w.is("all at once", "s-0=one s-1=one s-2=one")
	})
}

func TestUpdates(t *testing.T) {
	play(t, set(3, nil), func(w *world) {
		w.live(9)
		w.low = 3
		w.change(image("two"))
		w.live(15)
		w.is("rolled", "s-0=two s-1=two s-2=two")
		w.did("rolled", "delete s-2, create s-2, delete s-1, create s-1, delete s-0, create s-0")
		if w.low < 2 {
			t.Errorf("only %d served", w.low)
		}
		s, _ := client.Of[appsv1.StatefulSet](w, "a").Get(w.ctx, "s")
		if st := s.Status; st.CurrentRevision != st.UpdateRevision || st.UpdatedReplicas != 3 || st.CurrentReplicas != 3 {
			t.Errorf("status: %+v", st)
		}
		two := int32(2)
		w.change(func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &two}
			image("three")(s)
		})
		w.live(10)
		w.is("above the partition", "s-0=two s-1=two s-2=three")
		if err := client.Of[corev1.Pod](w, "a").Delete(w.ctx, "s-0", nil); err != nil {
			t.Fatal(err)
		}
		w.live(4)
		w.is("a pod below the partition dies", "s-0=two s-1=two s-2=three")
	})
}

func TestBrokenUpdateStopsAtOnePod(t *testing.T) {
	play(t, set(3, nil), func(w *world) {
		w.live(9)
		w.low, w.broken = 3, "broken"
		w.change(image("broken"))
		w.live(20)
		w.is("stopped", "s-0=one s-1=one s-2=broken")
		if w.low != 2 {
			t.Errorf("%d served", w.low)
		}
	})
}

func TestClaimsGoWithThePolicy(t *testing.T) {
	play(t, set(2, func(s *appsv1.StatefulSet) {
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	}), func(w *world) {
		w.live(6)
		owner := func(name string) string {
			c, err := client.Of[corev1.PersistentVolumeClaim](w, "a").Get(w.ctx, name)
			if err != nil || len(c.OwnerReferences) != 1 {
				t.Fatalf("%s: %v %v", name, c, err)
			}
			return c.OwnerReferences[0].Kind + " " + c.OwnerReferences[0].Name
		}
		if got := owner("data-s-1"); got != "StatefulSet s" {
			t.Errorf("owner: %s", got)
		}
		w.change(scale(1))
		w.live(3)
		if got := owner("data-s-1"); got != "Pod s-1" {
			t.Errorf("owner of the scaled: %s", got)
		}
		if got := owner("data-s-0"); got != "StatefulSet s" {
			t.Errorf("owner of the kept: %s", got)
		}
	})
}

func TestScaleDownHaltsForTheSick(t *testing.T) {
	ready := corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	for sick, want := range map[string]string{"": "s-2", "012": "", "0": "s-2", "2": "s-2", "12": "", "02": ""} {
		s := set(0, nil)
		v := &view{set: s, pods: map[int]*corev1.Pod{}, now: time.Now()}
		for i := range 3 {
			p := podFor(s, &s.Spec.Template, "r", i)
			if !strings.Contains(sick, strconv.Itoa(i)) {
				p.Status = ready
			}
			v.pods[i] = p
		}
		got := ""
		for _, p := range v.decide().remove {
			got += p.Name
		}
		if got != want {
			t.Errorf("sick %q: removes %q, want %q", sick, got, want)
		}
	}
}

func TestLabelsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(set(1, nil))
		d := controller.WithClient(s)
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		w := &world{Server: s, t: t, ctx: ctx}
		w.live(3)
		p := w.pods()[0].DeepCopy()
		revision := p.Labels[controller.RevisionLabel]
		delete(p.Labels, appsv1.StatefulSetPodNameLabel)
		w.Put(p)
		w.live(3)
		if p := w.pods()[0]; p.Labels[appsv1.StatefulSetPodNameLabel] != "s-0" || !strings.HasPrefix(revision, "s-") {
			t.Errorf("labels %v", p.Labels)
		}
		revisions, _ := client.Of[appsv1.ControllerRevision](s, "a").List(ctx, nil)
		if len(revisions) != 1 || revisions[0].Name != revision || revision != "s-"+revisions[0].Labels[hashLabel] {
			t.Errorf("revisions %v, pod of %s", revisions, revision)
		}
		stop()
		_ = g.Wait()
	})
}

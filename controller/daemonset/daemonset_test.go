package daemonset

import (
	"context"
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
	"github.com/sampan-dev/sampan/kit/run"
)

func set(edit func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	l := map[string]string{"ds": "d"}
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "d"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: l},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "one"}}}},
	}}
	if edit != nil {
		edit(ds)
	}
	return ds
}

func node(name string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Spec: corev1.NodeSpec{Taints: taints}}
}

func TestFits(t *testing.T) {
	taint := func(key string, e corev1.TaintEffect) corev1.Taint { return corev1.Taint{Key: key, Effect: e} }
	for name, c := range map[string]struct {
		n         *corev1.Node
		edit      func(*appsv1.DaemonSet)
		run, stay bool
	}{
		"plain":         {node("n"), nil, true, true},
		"cordoned":      {node("n", taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)), nil, true, true},
		"unreachable":   {node("n", taint(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)), nil, true, true},
		"control plane": {node("n", taint("node-role.kubernetes.io/control-plane", corev1.TaintEffectNoSchedule)), nil, false, true},
		"evicting":      {node("n", taint("x", corev1.TaintEffectNoExecute)), nil, false, false},
		"preference":    {node("n", taint("x", corev1.TaintEffectPreferNoSchedule)), nil, true, true},
		"tolerates all": {node("n", taint("x", corev1.TaintEffectNoExecute)), func(d *appsv1.DaemonSet) {
			d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		}, true, true},
		"selector": {node("n"), func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.NodeSelector = map[string]string{"name": "m"} }, false, false},
		"affinity": {node("n"), func(d *appsv1.DaemonSet) {
			d.Spec.Template.Spec.Affinity = wants("name", corev1.NodeSelectorOpNotIn, "n")
		}, false, false},
		"affinity meets": {node("n"), func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.Affinity = wants("name", corev1.NodeSelectorOpExists) }, true, true},
	} {
		if run, stay := fits(set(c.edit), c.n); run != c.run || stay != c.stay {
			t.Errorf("%s: %v %v", name, run, stay)
		}
	}
}

func wants(key string, op corev1.NodeSelectorOperator, values ...string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}}}}}
}

// world is a cluster whose pods are bound and become ready by themselves.
type world struct {
	*fake.Server
	t    *testing.T
	ctx  context.Context
	slow bool // new pods do not become ready
	low  int  // fewest pods ready at any moment
}

func (w *world) pods() []*corev1.Pod {
	l, err := client.Of[corev1.Pod](w, "a").List(w.ctx, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// live lets seconds pass, in each of which pods move on.
func (w *world) live(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		synctest.Wait()
		ready := 0
		for _, p := range w.pods() {
			if p.Spec.NodeName == "" {
				q := p.DeepCopy()
				q.Spec.NodeName = nodeOf(p)
				if !w.slow {
					q.Status.Phase = corev1.PodRunning
					q.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
				}
				w.Put(q)
			} else if len(p.Status.Conditions) > 0 {
				ready++
			}
		}
		w.low = min(w.low, ready)
	}
	synctest.Wait()
}

func (w *world) show() string {
	var out []string
	for _, p := range w.pods() {
		out = append(out, nodeOf(p)+"="+p.Spec.Containers[0].Image)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func play(t *testing.T, ds *appsv1.DaemonSet, script func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{Server: fake.New(ds, node("n1"), node("n2"), node("n3")), t: t}
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

func (w *world) is(when, want string) {
	w.t.Helper()
	if got := w.show(); got != want {
		w.t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func TestOnePodPerNode(t *testing.T) {
	play(t, set(nil), func(w *world) {
		w.live(3)
		w.is("at start", "n1=one n2=one n3=one")
		ds, _ := client.Of[appsv1.DaemonSet](w, "a").Get(w.ctx, "d")
		if s := ds.Status; s.DesiredNumberScheduled != 3 || s.NumberReady != 3 || s.NumberAvailable != 3 || s.UpdatedNumberScheduled != 3 || s.NumberUnavailable != 0 {
			t.Errorf("status: %+v", s)
		}
		w.Put(node("n4"))
		w.live(2)
		w.is("a node comes", "n1=one n2=one n3=one n4=one")
		w.Put(node("n1", corev1.Taint{Key: "x", Effect: corev1.TaintEffectNoExecute}))
		w.live(2)
		w.is("a node is tainted", "n2=one n3=one n4=one")
		p := w.pods()[0].DeepCopy()
		p.Status.Phase = corev1.PodFailed
		w.Put(p)
		w.live(3)
		w.is("a pod fails", "n2=one n3=one n4=one")
		if slices.ContainsFunc(w.pods(), func(q *corev1.Pod) bool { return q.UID == p.UID }) {
			t.Error("the failed pod is still there")
		}
	})
}

func TestRollingUpdate(t *testing.T) {
	for name, c := range map[string]struct {
		strategy appsv1.DaemonSetUpdateStrategy
		low      int
		want     string
	}{
		"default":   {appsv1.DaemonSetUpdateStrategy{}, 2, "n1=two n2=two n3=two"},
		"surge":     {surging(1), 3, "n1=two n2=two n3=two"},
		"on delete": {appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}, 3, "n1=one n2=one n3=one"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, set(func(d *appsv1.DaemonSet) { d.Spec.UpdateStrategy = c.strategy }), func(w *world) {
				w.live(3)
				w.low = 3
				sets := client.Of[appsv1.DaemonSet](w, "a")
				ds, _ := sets.Get(w.ctx, "d")
				next := ds.DeepCopy()
				next.Spec.Template.Spec.Containers[0].Image = "two"
				if _, err := sets.Update(w.ctx, next); err != nil {
					t.Fatal(err)
				}
				w.live(20)
				w.is("updated", c.want)
				if w.low < c.low {
					t.Errorf("only %d pods served", w.low)
				}
				revisions, _ := client.Of[appsv1.ControllerRevision](w, "a").List(w.ctx, nil)
				if len(revisions) != 2 || revisions[0].Revision+revisions[1].Revision != 3 {
					t.Errorf("revisions: %v", revisions)
				}
			})
		})
	}
}

func TestUpdateThatNeverServesStopsAtOneNode(t *testing.T) {
	play(t, set(nil), func(w *world) {
		w.live(3)
		w.slow, w.low = true, 3
		sets := client.Of[appsv1.DaemonSet](w, "a")
		ds, _ := sets.Get(w.ctx, "d")
		next := ds.DeepCopy()
		next.Spec.Template.Spec.Containers[0].Image = "broken"
		if _, err := sets.Update(w.ctx, next); err != nil {
			t.Fatal(err)
		}
		w.live(20)
		if w.low < 2 || strings.Count(w.show(), "broken") != 1 {
			t.Errorf("%d served; %s", w.low, w.show())
		}
	})
}

func surging(n int) appsv1.DaemonSetUpdateStrategy {
	s, u := intstr.FromInt32(int32(n)), intstr.FromInt32(0)
	return appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u}}
}

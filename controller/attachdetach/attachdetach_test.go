package attachdetach

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/volume"
)

const driver = "d.example.com"

func node(name string, edit ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{managed: "true"}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	for _, f := range edit {
		f(n)
	}
	return n
}

func disk(name string, modes ...corev1.PersistentVolumeAccessMode) *pv {
	return &pv{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{AccessModes: modes, ClaimRef: &corev1.ObjectReference{Namespace: "a", Name: name, UID: types.UID(name)},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "h-" + name}}}}
}

func claim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name)}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: name},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
}

func user(name, node, claim string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "v",
		VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}}}
}

func outOfOrder(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }

// story is a cluster with the loop, and what a driver's attacher does in it.
type story struct {
	*testing.T
	srv      *fake.Server
	registry *prometheus.Registry
}

func start(t *testing.T, objs []api.Object, fn func(w *story)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(objs...)
		d := controller.WithClient(srv)
		w := &story{t, srv, prometheus.NewRegistry()}
		d.Metrics = controller.NewMetrics(w.registry)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		w.rest(100 * time.Millisecond)
		fn(w)
	})
}

func (w *story) rest(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (w *story) attachment(pv, node string) *attachment {
	w.Helper()
	w.rest(100 * time.Millisecond)
	a, err := client.Of[attachment](w.srv, "").Get(w.Context(), volume.AttachmentName("h-"+pv, driver, node))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// answer is the driver's: attached, or why not.
func (w *story) answer(pv, node, failure string) {
	w.Helper()
	a := w.attachment(pv, node)
	if a == nil {
		w.Fatalf("volume %s is not to be attached to %s", pv, node)
	}
	a = a.DeepCopy()
	a.Status.Attached = failure == ""
	a.Status.AttachError = nil
	if failure != "" {
		a.Status.AttachError = &storagev1.VolumeError{Time: metav1.Now(), Message: failure}
	}
	if _, err := client.Of[attachment](w.srv, "").UpdateStatus(w.Context(), a); err != nil {
		w.Fatal(err)
	}
	w.rest(100 * time.Millisecond)
}

func (w *story) attached(node, want string) {
	w.Helper()
	w.rest(100 * time.Millisecond)
	n, err := client.Of[corev1.Node](w.srv, "").Get(w.Context(), node)
	if err != nil {
		w.Fatal(err)
	}
	var got []string
	for _, v := range n.Status.VolumesAttached {
		got = append(got, string(v.Name))
	}
	if strings.Join(got, " ") != want {
		w.Errorf("attached to %s: %q, want %q", node, got, want)
	}
}

func (w *story) use(node string, volumes ...string) {
	w.Helper()
	n, err := client.Of[corev1.Node](w.srv, "").Get(w.Context(), node)
	if err != nil {
		w.Fatal(err)
	}
	n = n.DeepCopy()
	n.Status.VolumesInUse = nil
	for _, v := range volumes {
		n.Status.VolumesInUse = append(n.Status.VolumesInUse, volume.UniqueName(driver, "h-"+v))
	}
	w.srv.Put(n)
	w.rest(100 * time.Millisecond)
}

func (w *story) remove(pod string) {
	w.Helper()
	if err := client.Of[corev1.Pod](w.srv, "a").Delete(w.Context(), pod, nil); err != nil {
		w.Fatal(err)
	}
	w.rest(100 * time.Millisecond)
}

// told says what a pod was told, and how often.
func (w *story) told(pod, message string, want int) {
	w.Helper()
	w.rest(time.Second)
	list, err := client.Of[corev1.Event](w.srv, "a").List(w.Context(), nil)
	if err != nil {
		w.Fatal(err)
	}
	got := 0
	for _, e := range list {
		if e.InvolvedObject.Name == pod && e.Message == message {
			got += int(e.Count)
		}
	}
	if got != want {
		w.Errorf("pod %s was told %q %d times, want %d", pod, message, got, want)
		for _, e := range list {
			w.Logf("%s %s %s", e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
}

const unique = "kubernetes.io/csi/d.example.com^h-v"

func TestAVolumeFollowsItsPod(t *testing.T) {
	objs := []api.Object{node("n1"), node("n2"), disk("v", corev1.ReadWriteOnce), claim("v"), user("p1", "n1", "v")}
	start(t, objs, func(w *story) {
		srv := w.srv
		a := w.attachment("v", "n1")
		if a == nil || a.Spec.Attacher != driver || a.Spec.NodeName != "n1" || *a.Spec.Source.PersistentVolumeName != "v" {
			t.Fatalf("attachment %+v", a)
		}
		w.attached("n1", "")
		w.answer("v", "n1", "no room")
		w.told("p1", `AttachVolume.Attach failed for volume "v" : no room`, 1)
		w.answer("v", "n1", "")
		w.attached("n1", unique)
		w.told("p1", `AttachVolume.Attach succeeded for volume "v" `, 1)
		w.use("n1", "v")
		// A second pod, elsewhere, must wait for the first.
		srv.Put(user("p2", "n2", "v"))
		w.told("p2", `Multi-Attach error for volume "v" Volume is already used by pod(s) p1`, 1)
		w.rest(time.Hour)
		w.told("p2", `Multi-Attach error for volume "v" Volume is already used by pod(s) p1`, 1)
		if w.attachment("v", "n2") != nil {
			t.Error("a volume that one node may have is attached to two")
		}
		w.remove("p1")
		w.rest(time.Hour)
		if w.attachment("v", "n1") == nil {
			t.Error("a volume in use on a ready node was taken away")
		}
		w.attached("n1", unique)
		w.use("n1")
		if w.attachment("v", "n1") != nil {
			t.Error("a volume that nobody uses stays")
		}
		w.attached("n1", "")
		w.answer("v", "n2", "")
		w.attached("n2", unique)
		if got := wantedVolumes(t, w.registry); got != 1 {
			t.Errorf("%v volumes are counted", got)
		}
	})
}

// wantedVolumes is the figure of what all nodes want.
func wantedVolumes(t *testing.T, r *prometheus.Registry) float64 {
	t.Helper()
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range all {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "attachdetach_controller_total_volumes" && l.GetValue() == "desired_state_of_world" {
					sum += m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

func TestNodesThatDoNotAnswer(t *testing.T) {
	evil := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	}
	for name, c := range map[string]struct {
		node     *corev1.Node
		gone     bool
		early    bool // detached within six minutes
		late     bool // and after
		forcedBy string
	}{
		"ready":            {node: node("n1")},
		"not ready":        {node: node("n1", outOfOrder), late: true, forcedBy: byTimeout},
		"out of service":   {node: node("n1", outOfOrder, evil), early: true, late: true, forcedBy: byTaint},
		"deleted with use": {node: node("n1"), gone: true, late: true, forcedBy: byTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			objs := []api.Object{c.node, node("n2"), disk("v", corev1.ReadWriteOnce), claim("v"), user("p1", "n1", "v")}
			start(t, objs, func(w *story) {
				srv := w.srv
				w.answer("v", "n1", "")
				w.use("n1", "v")
				srv.Put(user("p2", "n2", "v"))
				w.remove("p1")
				if c.gone {
					if err := client.Of[corev1.Node](srv, "").Delete(t.Context(), "n1", nil); err != nil {
						t.Fatal(err)
					}
				}
				w.rest(5 * time.Minute)
				if got := w.attachment("v", "n1") == nil; got != c.early {
					t.Errorf("after five minutes detached: %v, want %v", got, c.early)
				}
				w.rest(2 * time.Minute)
				if got := w.attachment("v", "n1") == nil; got != c.late {
					t.Errorf("after seven minutes detached: %v, want %v", got, c.late)
				}
				if got := w.attachment("v", "n2") != nil; got != c.late {
					t.Errorf("attached to the next node: %v, want %v", got, c.late)
				}
				if c.forcedBy != "" {
					all, err := w.registry.Gather()
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range all {
						if f.GetName() == "attach_detach_controller_attachdetach_controller_forced_detaches" && (len(f.GetMetric()) != 1 || f.GetMetric()[0].GetLabel()[0].GetValue() != c.forcedBy) {
							t.Errorf("%v", f)
						}
					}
				}
			})
		})
	}
}

func TestWhatIsLeftAlone(t *testing.T) {
	no := false
	other := disk("o", corev1.ReadWriteOnce)
	other.Spec.CSI.Driver = "plain.example.com"
	name := "v"
	objs := []api.Object{node("n1"), node("wild", func(n *corev1.Node) { n.Annotations = nil }), disk("v"), claim("v"), disk("w", corev1.ReadWriteOnce), claim("w"), other, claim("o"),
		user("p1", "wild", "w"), user("p2", "n1", "o"), user("p3", "n1", "v"), user("p4", "wild", "v"),
		&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "plain.example.com"}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no}},
		&attachment{ObjectMeta: metav1.ObjectMeta{Name: "by-hand"}, Spec: storagev1.VolumeAttachmentSpec{Attacher: driver, NodeName: "n9", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &name}}}}
	start(t, objs, func(w *story) {
		srv := w.srv
		if w.attachment("v", "n1") == nil {
			t.Error("a volume of many nodes is not attached, for another has it")
		}
		w.rest(5 * time.Minute)
		list, err := client.Of[attachment](srv, "").List(t.Context(), nil)
		if err != nil || len(list) != 2 {
			t.Errorf("attachments %v, %v; want that of v on n1 and the one made by hand", list, err)
		}
		w.told("p3", `AttachVolume.Attach failed for volume "v" : timed out waiting for external-attacher of d.example.com CSI driver to attach volume h-v`, 2)
	})
}

// TestANodeThatBeganToUse is asked once more between being told and being robbed.
func TestANodeThatBeganToUse(t *testing.T) {
	objs := []api.Object{node("n1"), disk("v", corev1.ReadWriteOnce), claim("v"), user("p1", "n1", "v")}
	start(t, objs, func(w *story) {
		srv := w.srv
		w.answer("v", "n1", "")
		l := &loop{Loop: controller.NewLoop(controller.WithClient(srv), "attachdetach", 1, nil)}
		w.use("n1", "v")
		a := w.attachment("v", "n1")
		err := l.detach(t.Context(), &view{name: "n1"}, removal{name: unique, at: a})
		if err == nil || err.Error() != "volume "+unique+": still in use on node n1" || w.attachment("v", "n1") == nil {
			t.Errorf("detach: %v", err)
		}
	})
}

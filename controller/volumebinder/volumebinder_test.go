package volumebinder

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/semantics/volume"
)

func size(q string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(q)}
}

func vol(name, q, class string, edit func(*pv)) *pv {
	v := &pv{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PersistentVolumeSpec{Capacity: size(q), StorageClassName: class,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp/" + name}}}}
	if edit != nil {
		edit(v)
	}
	return v
}

func wish(name, q, class string, edit func(*claim)) *claim {
	c := &claim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID(name)}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To(class),
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: size(q)}}}
	if edit != nil {
		edit(c)
	}
	return c
}

type story struct {
	*testing.T
	srv     *fake.Server
	removed []string
}

func start(t *testing.T, fn func(w *story), objs ...any) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New()
		for _, o := range objs {
			switch o := o.(type) {
			case *pv:
				srv.Put(o)
			case *storagev1.StorageClass:
				srv.Put(o)
			case *corev1.Pod:
				srv.Put(o)
			}
		}
		w := &story{T: t, srv: srv}
		d := controller.WithClient(srv)
		l := New(d).(*loop)
		l.remove = func(path string) error { w.removed = append(w.removed, path); return nil }
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", l.Run)
		defer func() { g.Stop(); g.Wait() }()
		w.rest() // all volumes are available, and all else is known, when the first claim comes
		for _, o := range objs {
			if c, ok := o.(*claim); ok {
				srv.Put(c)
			}
		}
		fn(w)
	})
}

func (w *story) rest() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// claim checks a claim: its phase and volume.
func (w *story) claim(name string, phase corev1.PersistentVolumeClaimPhase, on string) *claim {
	w.Helper()
	w.rest()
	c, err := client.Of[claim](w.srv, "a").Get(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	if c.Status.Phase != phase || c.Spec.VolumeName != on {
		w.Errorf("claim %s is %s on %q, want %s on %q", name, c.Status.Phase, c.Spec.VolumeName, phase, on)
	}
	return c
}

func (w *story) volume(name string, phase corev1.PersistentVolumePhase) *pv {
	w.Helper()
	w.rest()
	v, err := client.Of[pv](w.srv, "").Get(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	if v.Status.Phase != phase {
		w.Errorf("volume %s is %s, want %s", name, v.Status.Phase, phase)
	}
	return v
}

func (w *story) told(of, reason, text string) {
	w.Helper()
	w.rest()
	events, _ := client.Of[corev1.Event](w.srv, "").List(w.Context(), nil)
	for _, e := range events {
		if e.InvolvedObject.Name == of && e.Reason == reason && strings.Contains(e.Message, text) {
			return
		}
	}
	w.Errorf("nobody told %s of %s: %s", of, reason, text)
}

func TestStaticBinding(t *testing.T) {
	start(t, func(w *story) {
		c := w.claim("c", corev1.ClaimBound, "middle")
		if c.Annotations[volume.BindCompleted] != "yes" || c.Annotations[volume.BoundByController] != "yes" || c.Status.Capacity.Storage().String() != "5Gi" || len(c.Status.AccessModes) != 1 {
			t.Errorf("%v %+v", c.Annotations, c.Status)
		}
		if v := w.volume("middle", corev1.VolumeBound); v.Spec.ClaimRef.UID != "c" || v.Annotations[volume.BoundByController] != "yes" {
			t.Errorf("%+v", v)
		}
		w.volume("small", corev1.VolumeAvailable)
		w.claim("selective", corev1.ClaimBound, "labelled")
		w.claim("block", corev1.ClaimPending, "")
		w.told("block", "FailedBinding", "no persistent volumes available")
		w.claim("named", corev1.ClaimPending, "small")
		w.told("named", "VolumeMismatch", `Cannot bind to requested volume "small": requested PV is too small`)
		w.srv.Put(vol("raw", "10Gi", "", func(v *pv) { v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }))
		w.claim("block", corev1.ClaimBound, "raw")
	},
		vol("small", "1Gi", "", nil), vol("middle", "5Gi", "", nil), vol("big", "50Gi", "", nil), vol("other", "3Gi", "fast", nil),
		vol("labelled", "50Gi", "", func(v *pv) { v.Labels = map[string]string{"l": "m"} }),
		wish("c", "2Gi", "", nil),
		wish("selective", "2Gi", "", func(c *claim) { c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"l": "m"}} }),
		wish("block", "2Gi", "", func(c *claim) { c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) }),
		wish("named", "2Gi", "", func(c *claim) { c.Spec.VolumeName = "small" }))
}

func TestClasses(t *testing.T) {
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	start(t, func(w *story) {
		w.claim("late", corev1.ClaimPending, "")
		w.told("late", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
		w.claim("used", corev1.ClaimPending, "")
		w.told("used", "WaitForPodScheduled", "waiting for pod p to be scheduled")
		c := w.claim("dynamic", corev1.ClaimPending, "")
		if c.Annotations[volume.Provisioner] != "csi.example.com" || c.Annotations[volume.BetaProvisioner] != "csi.example.com" {
			t.Errorf("%v", c.Annotations)
		}
		w.told("dynamic", "ExternalProvisioning", "either by the external provisioner 'csi.example.com'")
		w.claim("lonely", corev1.ClaimPending, "")
		w.told("lonely", "ProvisioningFailed", `storageclass.storage.k8s.io "absent" not found`)
		// The scheduler chooses a volume by naming the claim in it.
		v := vol("local", "5Gi", "local", func(v *pv) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "a", Name: "late", UID: "late"}
		})
		w.srv.Put(v)
		w.claim("late", corev1.ClaimBound, "local")
		w.srv.Put(vol("made", "5Gi", "csi", func(v *pv) {
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "a", Name: "dynamic", UID: "dynamic"}
		}))
		w.claim("dynamic", corev1.ClaimBound, "made")
	},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: volume.NoProvisioner, VolumeBindingMode: &wait},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "csi"}, Provisioner: "csi.example.com"},
		vol("unused", "5Gi", "local", nil),
		wish("late", "1Gi", "local", nil), wish("used", "1Gi", "local", nil), wish("dynamic", "1Gi", "csi", nil), wish("lonely", "1Gi", "absent", nil),
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a"}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v",
			VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "used"}}}}}})
}

func TestReclaim(t *testing.T) {
	policy := func(p corev1.PersistentVolumeReclaimPolicy) func(*pv) {
		return func(v *pv) { v.Spec.PersistentVolumeReclaimPolicy = p }
	}
	start(t, func(w *story) {
		names := map[string]string{"keep": "kept", "drop": "dropped", "wipe": "wiped", "etc": "outside"}
		for c, v := range names {
			w.claim(c, corev1.ClaimBound, v)
			client.Of[claim](w.srv, "a").Delete(t.Context(), c, nil)
		}
		if v := w.volume("kept", corev1.VolumeReleased); v.Spec.ClaimRef == nil {
			t.Error("a released volume must remember its claim")
		}
		if _, err := client.Of[pv](w.srv, "").Get(t.Context(), "dropped"); !apierrors.IsNotFound(err) || len(w.removed) != 1 || w.removed[0] != "/tmp/dropped" {
			t.Errorf("%v, removed %v", err, w.removed)
		}
		w.volume("outside", corev1.VolumeFailed)
		w.told("outside", "VolumeFailedDelete", "host_path deleter only supports /tmp/.+ but received provided /etc")
		w.volume("wiped", corev1.VolumeReleased)
		pods := client.Of[corev1.Pod](w.srv, "default")
		for _, phase := range []corev1.PodPhase{corev1.PodFailed, corev1.PodSucceeded} {
			p, err := pods.Get(t.Context(), "recycler-for-wiped")
			if err != nil {
				t.Fatal(err)
			}
			p = p.DeepCopy()
			p.Status.Phase, p.Status.Message = phase, "why"
			pods.UpdateStatus(t.Context(), p)
			if phase == corev1.PodFailed {
				w.volume("wiped", corev1.VolumeFailed)
				w.told("wiped", "VolumeFailedRecycle", "Recycle failed: why")
				time.Sleep(20 * time.Second)
			}
		}
		if v := w.volume("wiped", corev1.VolumeAvailable); v.Spec.ClaimRef != nil {
			t.Errorf("%+v", v.Spec.ClaimRef)
		}
		if _, err := pods.Get(t.Context(), "recycler-for-wiped"); !apierrors.IsNotFound(err) {
			t.Error("the recycler is still there")
		}
	},
		vol("kept", "5Gi", "a", nil), vol("dropped", "5Gi", "b", policy(corev1.PersistentVolumeReclaimDelete)), vol("wiped", "5Gi", "c", policy(corev1.PersistentVolumeReclaimRecycle)),
		vol("outside", "5Gi", "d", func(v *pv) { policy(corev1.PersistentVolumeReclaimDelete)(v); v.Spec.HostPath.Path = "/etc" }),
		wish("keep", "1Gi", "a", nil), wish("drop", "1Gi", "b", nil), wish("wipe", "1Gi", "c", nil), wish("etc", "1Gi", "d", nil))
}

func TestLost(t *testing.T) {
	start(t, func(w *story) {
		w.claim("c", corev1.ClaimBound, "v")
		client.Of[pv](w.srv, "").Delete(t.Context(), "v", nil)
		w.claim("c", corev1.ClaimLost, "v")
		w.told("c", "ClaimLost", "Bound claim has lost its PersistentVolume")
		// One of the same name that somebody else reserved comes back.
		w.srv.Put(vol("v", "5Gi", "", func(v *pv) { v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "a", Name: "c", UID: "other"} }))
		w.claim("c", corev1.ClaimLost, "v")
	}, vol("v", "5Gi", "", nil), wish("c", "1Gi", "", nil))
}

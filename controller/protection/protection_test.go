package protection

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

// gone deletes an object and says whether it left.
func gone[T any](t *testing.T, srv *fake.Server, ns, name string) bool {
	t.Helper()
	objs := client.Of[T](srv, ns)
	o, err := objs.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if f := any(o).(api.Object).GetFinalizers(); len(f) != 1 {
		t.Errorf("finalizers %v", f)
	}
	if err := objs.Delete(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
	return left[T](t, srv, ns, name)
}

func left[T any](t *testing.T, srv *fake.Server, ns, name string) bool {
	time.Sleep(time.Second)
	synctest.Wait()
	_, err := client.Of[T](srv, ns).Get(t.Context(), name)
	return apierrors.IsNotFound(err)
}

func TestWhatIsInUseStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claim := func(name string) *corev1.PersistentVolumeClaim {
			return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a"}}
		}
		uses := func(name, node, claim string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a"}, Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "v",
				VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}}}
		}
		fast := claim("fast")
		fast.Spec.VolumeAttributesClassName = ptr.To("gold")
		srv := fake.New(claim("free"), claim("mounted"), claim("waiting"), fast, uses("p", "n", "mounted"), uses("q", "", "waiting"),
			&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "bound"}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound}},
			&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "released"}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased}},
			&storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}}, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "silver"}})
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		for _, mk := range []func(controller.Deps) controller.Controller{NewClaims, NewVolumes, NewAttributes} {
			c := mk(d)
			g.Go(c.Name(), c.Run)
		}
		defer func() { g.Stop(); g.Wait() }()
		time.Sleep(time.Second)
		for name, want := range map[string]bool{"free": true, "mounted": false, "waiting": true} {
			if gone[corev1.PersistentVolumeClaim](t, srv, "a", name) != want {
				t.Errorf("claim %s: gone is not %v", name, want)
			}
		}
		for name, want := range map[string]bool{"bound": false, "released": true} {
			if gone[corev1.PersistentVolume](t, srv, "", name) != want {
				t.Errorf("volume %s: gone is not %v", name, want)
			}
		}
		for name, want := range map[string]bool{"gold": false, "silver": true} {
			if gone[storagev1.VolumeAttributesClass](t, srv, "", name) != want {
				t.Errorf("class %s: gone is not %v", name, want)
			}
		}
		zero := int64(0)
		client.Of[corev1.Pod](srv, "a").Delete(t.Context(), "p", &metav1.DeleteOptions{GracePeriodSeconds: &zero})
		if !left[corev1.PersistentVolumeClaim](t, srv, "a", "mounted") {
			t.Error("the claim stays when its pod has gone")
		}
		v, _ := client.Of[corev1.PersistentVolume](srv, "").Get(t.Context(), "bound")
		v = v.DeepCopy()
		v.Status.Phase = corev1.VolumeReleased
		client.Of[corev1.PersistentVolume](srv, "").UpdateStatus(t.Context(), v)
		if !left[corev1.PersistentVolume](t, srv, "", "bound") {
			t.Error("the volume stays when released")
		}
		if !gone[corev1.PersistentVolumeClaim](t, srv, "a", "fast") || !left[storagev1.VolumeAttributesClass](t, srv, "", "gold") {
			t.Error("the attribute class stays when its claim has gone")
		}
	})
}

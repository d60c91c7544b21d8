package volumeexpand

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func TestWhoAsksForMoreIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		size := func(q string) corev1.ResourceList {
			return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(q)}
		}
		c := &claim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c", UID: "c"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v", Resources: corev1.VolumeResourceRequirements{Requests: size("1Gi")}},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: size("1Gi")}}
		srv := fake.New(c, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "a", Name: "c", UID: "c"}}})
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		told := func() (out []string) {
			time.Sleep(time.Second)
			synctest.Wait()
			list, err := client.Of[corev1.Event](srv, "a").List(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				out = append(out, e.Source.Component+": "+e.Reason+": "+e.Message)
			}
			return out
		}
		if got := told(); len(got) != 0 {
			t.Errorf("a claim that has what it asks for is told %q", got)
		}
		c = c.DeepCopy()
		c.Spec.Resources.Requests = size("2Gi")
		srv.Put(c)
		const want = "volume_expand: ExternalExpanding: waiting for an external controller to expand this PVC"
		if got := told(); len(got) != 1 || got[0] != want {
			t.Errorf("told %q, want %q", got, want)
		}
		c = c.DeepCopy()
		c.Status.Capacity = size("2Gi")
		srv.Put(c)
		if got := told(); len(got) != 1 {
			t.Errorf("told again: %q", got)
		}
	})
}

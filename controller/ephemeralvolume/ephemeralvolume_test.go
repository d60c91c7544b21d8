package ephemeralvolume

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func TestClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		template := &corev1.PersistentVolumeClaimTemplate{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "m"}, Annotations: map[string]string{"a": "b"}},
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("fast")}}
		p := func(name string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a"}, Spec: corev1.PodSpec{Volumes: []corev1.Volume{
				{Name: "plain"}, {Name: "data", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: template}}}}}}
		}
		srv := fake.New(p("p"), p("q"), &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "q-data", Namespace: "a"}})
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		claims := client.Of[corev1.PersistentVolumeClaim](srv, "a")
		check := func() {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			c, err := claims.Get(t.Context(), "p-data")
			if err != nil {
				t.Fatal(err)
			}
			if c.Labels["l"] != "m" || c.Annotations["a"] != "b" || *c.Spec.StorageClassName != "fast" || !metav1.IsControlledBy(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: c.OwnerReferences[0].UID}}) || c.OwnerReferences[0].Name != "p" {
				t.Errorf("%+v", c)
			}
		}
		check()
		claims.Delete(t.Context(), "p-data", nil)
		check()
		foreign, _ := claims.Get(t.Context(), "q-data")
		events, _ := client.Of[corev1.Event](srv, "a").List(t.Context(), nil)
		if len(foreign.OwnerReferences) != 0 || len(events) == 0 || events[0].Reason != "FailedBinding" ||
			events[0].Message != "ephemeral volume data: PVC a/q-data was not created for pod a/q (pod is not owner)" {
			t.Errorf("claim %v, events %v", foreign.OwnerReferences, events)
		}
	})
}

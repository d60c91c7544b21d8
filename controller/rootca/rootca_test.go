package rootca

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func TestWanted(t *testing.T) {
	right := wanted(nil, "a", "CA")
	if right.Data["ca.crt"] != "CA" || right.Name != "kube-root-ca.crt" || right.Annotations["kubernetes.io/description"] == "" {
		t.Fatalf("new map: %v", right)
	}
	if again := wanted(right, "a", "CA"); again != nil {
		t.Errorf("a right map is rewritten: %v", again)
	}
	for name, spoil := range map[string]func(*corev1.ConfigMap){
		"data":       func(c *corev1.ConfigMap) { c.Data = map[string]string{"ca.crt": "evil"} },
		"extra":      func(c *corev1.ConfigMap) { c.Data["more"] = "x" },
		"annotation": func(c *corev1.ConfigMap) { c.Annotations = nil },
	} {
		c := right.DeepCopy()
		spoil(c)
		if got := wanted(c, "a", "CA"); got == nil || got.Data["ca.crt"] != "CA" || len(got.Data) != 1 || got.Annotations[descriptionKey] != description {
			t.Errorf("%s: not restored: %v", name, got)
		}
	}
}

func TestPublishedAndRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}})
		d := controller.WithClient(s)
		c := New(d, []byte("CA"))
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		objects := client.Of[corev1.ConfigMap](s, "a")
		good := func(when string) *corev1.ConfigMap {
			t.Helper()
			synctest.Wait()
			m, err := objects.Get(ctx, name)
			if err != nil || m.Data["ca.crt"] != "CA" {
				t.Fatalf("%s: %v %v", when, m, err)
			}
			return m
		}
		m := good("at start").DeepCopy()
		m.Data["ca.crt"] = "evil"
		if _, err := objects.Update(ctx, m); err != nil {
			t.Fatal(err)
		}
		good("changed")
		if err := objects.Delete(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
		good("deleted")
		stop()
		_ = g.Wait()
	})
}

func TestTrustBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fake.New(&bundle{ObjectMeta: metav1.ObjectMeta{Name: bundleName(servingSigner, "old")}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: servingSigner, TrustBundle: "old"}})
		d := controller.WithClient(s)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", NewBundle(d, []byte("new")).Run)
		defer func() { g.Stop(); g.Wait() }()
		time.Sleep(time.Second)
		synctest.Wait()
		list, err := client.Of[bundle](s, "").List(t.Context(), nil)
		if err != nil || len(list) != 1 || list[0].Spec.TrustBundle != "new" || list[0].Name != "kubernetes.io:kube-apiserver-serving:11507a0e2f5e69d5dfa40a62" {
			t.Errorf("%v %v", list, err)
		}
	})
}

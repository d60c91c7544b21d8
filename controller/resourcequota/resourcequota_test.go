package resourcequota

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func hard(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

// TestCounts follows what a namespace uses as it comes and goes.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(
			&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "ns"}, Spec: corev1.ResourceQuotaSpec{Hard: hard("pods", "5", "requests.cpu", "2", "services", "3", "configmaps", "9", "count/deployments.apps", "4", "count/nothing.example.com", "1")}},
			&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "best", Namespace: "ns"}, Spec: corev1.ResourceQuotaSpec{Hard: hard("pods", "5"), Scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}}},
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}}, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "other"}},
			&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "ns"}},
		)
		srv.Serve([]schema.GroupVersionResource{client.Resource[appsv1.Deployment]()})
		for i := range 3 {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Namespace: "ns"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
			if i > 0 {
				p.Spec.Containers[0].Resources.Requests = hard("cpu", "300m")
			}
			srv.Put(p)
		}
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		check := func(name string, want corev1.ResourceList) {
			t.Helper()
			q, err := client.Of[corev1.ResourceQuota](srv, "ns").Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			for n, w := range want {
				if got := q.Status.Used[n]; got.Cmp(w) != 0 {
					t.Errorf("%s: used %s %s, want %s", name, n, got.String(), w.String())
				}
			}
			if len(q.Status.Hard) != len(q.Spec.Hard) || len(q.Status.Used) != len(want) {
				t.Errorf("%s: status %v", name, q.Status)
			}
		}
		clock.Sleep(t.Context(), 10*time.Second)
		check("q", hard("pods", "3", "requests.cpu", "600m", "services", "0", "configmaps", "1", "count/deployments.apps", "1", "count/nothing.example.com", "0"))
		check("best", hard("pods", "1"))
		client.Of[corev1.Pod](srv, "ns").Delete(t.Context(), "p1", nil)
		client.Of[appsv1.Deployment](srv, "ns").Delete(t.Context(), "d", nil)
		srv.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}})
		clock.Sleep(t.Context(), 10*time.Second)
		check("q", hard("pods", "2", "requests.cpu", "300m", "services", "1", "configmaps", "1", "count/deployments.apps", "0", "count/nothing.example.com", "0"))
		q, _ := client.Of[corev1.ResourceQuota](srv, "ns").Get(t.Context(), "q")
		q = q.DeepCopy()
		q.Status.Used["pods"] = resource.MustParse("3") // admission let one in that is not stored yet
		client.Of[corev1.ResourceQuota](srv, "ns").UpdateStatus(t.Context(), q)
		clock.Sleep(t.Context(), young/2)
		want := hard("pods", "3", "requests.cpu", "300m", "services", "1", "configmaps", "1", "count/deployments.apps", "0", "count/nothing.example.com", "0")
		check("q", want)
		clock.Sleep(t.Context(), 10*time.Second)
		want["pods"] = resource.MustParse("2")
		check("q", want)
		// A pod goes just when admission lets another in.
		q, _ = client.Of[corev1.ResourceQuota](srv, "ns").Get(t.Context(), "q")
		q = q.DeepCopy()
		q.Status.Used["pods"] = resource.MustParse("3")
		client.Of[corev1.ResourceQuota](srv, "ns").UpdateStatus(t.Context(), q)
		client.Of[corev1.Pod](srv, "ns").Delete(t.Context(), "p0", nil)
		clock.Sleep(t.Context(), young/2)
		want["pods"] = resource.MustParse("3")
		check("q", want)
		clock.Sleep(t.Context(), 10*time.Second)
		want["pods"] = resource.MustParse("1")
		check("q", want)
	})
}

package namespace

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

func meta(name string, finalizers ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "gone", Finalizers: finalizers}
}

// TestEmptiesAndLetsGo deletes a namespace with content that a finalizer holds,
// and beside another that must stay whole.
func TestEmptiesAndLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		grace := int64(30)
		slow := &corev1.Pod{ObjectMeta: meta("slow")}
		slow.DeletionGracePeriodSeconds = &grace // a kubelet has to end it
		srv := fake.New(
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}},
			slow, &corev1.ConfigMap{ObjectMeta: meta("a")}, &corev1.Secret{ObjectMeta: meta("held", "example.com/hold")}, &appsv1.Deployment{ObjectMeta: meta("d")},
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "kept"}},
		)
		srv.Serve([]schema.GroupVersionResource{client.Resource[corev1.ConfigMap](), client.Resource[corev1.Secret](), client.Resource[corev1.Pod](), client.Resource[corev1.Namespace](), client.Resource[appsv1.Deployment]()}, "namespaces")
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		clock.Sleep(t.Context(), time.Minute)
		if got := srv.Calls(); len(got) != 0 {
			t.Fatalf("a namespace that lives was touched: %+v", got)
		}
		namespaces := client.Of[corev1.Namespace](srv, "")
		if err := namespaces.Delete(t.Context(), "gone", nil); err != nil {
			t.Fatal(err)
		}
		clock.Sleep(t.Context(), 10*time.Second)
		if _, err := client.Of[corev1.ConfigMap](srv, "gone").Get(t.Context(), "a"); err != nil {
			t.Errorf("content went before the last pod ended: %v", err)
		}
		zero := int64(0)
		client.Of[corev1.Pod](srv, "gone").Delete(t.Context(), "slow", &metav1.DeleteOptions{GracePeriodSeconds: &zero})
		clock.Sleep(t.Context(), 10*time.Second)
		ns, err := namespaces.Get(t.Context(), "gone")
		if err != nil {
			t.Fatal("the namespace is gone while an object is held: ", err)
		}
		says := map[string]string{}
		for _, c := range ns.Status.Conditions {
			says[string(c.Type)] = string(c.Status) + " " + c.Message
		}
		for kind, want := range map[string]string{
			"NamespaceContentRemaining":         "True Some resources are remaining: secrets. has 1 resource instances",
			"NamespaceFinalizersRemaining":      "True Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
			"NamespaceDeletionContentFailure":   "False All content successfully deleted, may be waiting on finalization",
			"NamespaceDeletionDiscoveryFailure": "False All resources successfully discovered",
		} {
			if says[kind] != want {
				t.Errorf("%s: %q, want %q", kind, says[kind], want)
			}
		}
		s, _ := client.Of[corev1.Secret](srv, "gone").Get(t.Context(), "held")
		free := s.DeepCopy()
		free.Finalizers = nil
		if _, err := client.Of[corev1.Secret](srv, "gone").Update(t.Context(), free); err != nil {
			t.Fatal(err)
		}
		clock.Sleep(t.Context(), 20*time.Second)
		if _, err := namespaces.Get(t.Context(), "gone"); !apierrors.IsNotFound(err) {
			t.Errorf("the empty namespace is still there: %v", err)
		}
		kept, _ := client.Of[corev1.ConfigMap](srv, "kept").List(t.Context(), nil)
		if len(kept) != 1 {
			t.Error("another namespace lost content")
		}
	})
}

// TestStaysWithoutDiscovery: what cannot be discovered cannot be known to be empty.
func TestStaysWithoutDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}})
		srv.Serve([]schema.GroupVersionResource{client.Resource[corev1.ConfigMap](), {Group: "metrics.example.com", Version: "v1", Resource: "things"}})
		srv.SetRaw("/apis/metrics.example.com/v1", []byte("not JSON"))
		d := controller.WithClient(srv)
		c := New(d)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", c.Run)
		defer func() { g.Stop(); g.Wait() }()
		client.Of[corev1.Namespace](srv, "").Delete(t.Context(), "gone", nil)
		clock.Sleep(t.Context(), time.Minute)
		ns, err := client.Of[corev1.Namespace](srv, "").Get(t.Context(), "gone")
		if err != nil {
			t.Fatal("the namespace went: ", err)
		}
		if !slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceDeletionDiscoveryFailure && c.Status == corev1.ConditionTrue && c.Reason == "DiscoveryFailed"
		}) {
			t.Errorf("conditions %+v, want DiscoveryFailed", ns.Status.Conditions)
		}
	})
}

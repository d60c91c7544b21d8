package namespace

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/resource"
)

func TestLife(t *testing.T) {
	k, r := Kind(), &resource.Request{}
	n := &corev1.Namespace{}
	k.Default(n)
	n.Name = "made-up" // a generated name comes after the defaults
	k.Prepare(r, n, nil)
	if n.Labels["kubernetes.io/metadata.name"] != "made-up" || n.Status.Phase != "Active" || len(n.Spec.Finalizers) != 1 || n.Spec.Finalizers[0] != "kubernetes" {
		t.Errorf("created as %+v", n)
	}
	if errs := k.Validate(n, nil); len(errs) > 0 {
		t.Error(errs)
	}
	next := n.DeepCopy()
	next.Spec.Finalizers, next.Status.Phase = nil, "Terminating"
	k.Prepare(r, next, n)
	if !k.Held(next) || next.Status.Phase != "Active" {
		t.Errorf("an ordinary update changed %+v", next)
	}
	k.BeginDelete(next)
	if next.Status.Phase != "Terminating" {
		t.Errorf("phase %s while being deleted", next.Status.Phase)
	}
	finalize, _ := k.Sub("finalize")
	last := next.DeepCopy()
	last.Spec.Finalizers = nil
	finalize.Prepare(r, last, next)
	if k.Held(last) {
		t.Error("held although nobody is named")
	}
}

func TestRules(t *testing.T) {
	k := Kind()
	finalize, _ := k.Sub("finalize")
	bad := &corev1.Namespace{Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"mine"}}}
	if got, want := finalize.Validate(bad, bad).ToAggregate().Error(), `spec.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`; got != want {
		t.Errorf("got %s", got)
	}
	status, _ := k.Sub("status")
	for phase, deleted := range map[corev1.NamespacePhase]*metav1.Time{"Active": {Time: time.Unix(1, 0)}, "Terminating": nil} {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: deleted}, Status: corev1.NamespaceStatus{Phase: phase}}
		if errs := status.Validate(n, n); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "status.Phase: Invalid value") {
			t.Errorf("%s: %v", phase, errs)
		}
	}
	if msgs := k.ValidateName("a.b", false); len(msgs) == 0 {
		t.Error("a dot is no part of a label")
	}
}

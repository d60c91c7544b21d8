package resourceclaim

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func TestNames(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("p", 50), Namespace: "a", UID: "u"}}
	c := from(&devicev1.ResourceClaimTemplate{}, p, strings.Repeat("e", 40))
	if len(c.GenerateName) > 58 || c.Annotations[devicev1.PodResourceClaimAnnotation] != strings.Repeat("e", 40) || isFor(p, c) != nil {
		t.Errorf("%+v", c.ObjectMeta)
	}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		template := &devicev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "gpu", Namespace: "a"}, Spec: devicev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "m"}},
			Spec: devicev1.ResourceClaimSpec{Devices: devicev1.DeviceClaim{Requests: []devicev1.DeviceRequest{{Name: "r"}}}}}}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a", UID: "p"}, Spec: corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{
			{Name: "own", ResourceClaimTemplateName: ptr.To("gpu")}, {Name: "shared", ResourceClaimName: ptr.To("shared")}}}}
		srv := fake.New(p, &devicev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: "a", Finalizers: []string{devicev1.Finalizer}},
			Status: devicev1.ResourceClaimStatus{Allocation: &devicev1.AllocationResult{}, ReservedFor: []devicev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "old", UID: "old"}}}})
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		rest := func() { time.Sleep(time.Second); synctest.Wait() }
		claims, pods := client.Of[devicev1.ResourceClaim](srv, "a"), client.Of[corev1.Pod](srv, "a")
		rest()
		if list, _ := claims.List(t.Context(), nil); len(list) != 1 {
			t.Errorf("%d claims without the template", len(list))
		}
		if c, _ := claims.Get(t.Context(), "shared"); c.Status.Allocation != nil || len(c.Status.ReservedFor) != 0 || len(c.Finalizers) != 0 {
			t.Errorf("what a pod left behind is kept: %+v %v", c.Status, c.Finalizers)
		}
		srv.Put(template)
		time.Sleep(20 * time.Second)
		rest()
		p, _ = pods.Get(t.Context(), "p")
		if len(p.Status.ResourceClaimStatuses) != 1 || p.Status.ResourceClaimStatuses[0].Name != "own" {
			t.Fatalf("%+v", p.Status)
		}
		own, err := claims.Get(t.Context(), *p.Status.ResourceClaimStatuses[0].ResourceClaimName)
		if err != nil || own.Labels["l"] != "m" || isFor(p, own) != nil {
			t.Fatalf("%+v, %v", own, err)
		}
		// The pod is bound by somebody who reserved nothing; the claim is allocated.
		own = own.DeepCopy()
		own.Finalizers, own.Status.Allocation = []string{devicev1.Finalizer}, &devicev1.AllocationResult{}
		srv.Put(own)
		p = p.DeepCopy()
		p.Spec.NodeName = "n"
		srv.Put(p)
		rest()
		if own, _ = claims.Get(t.Context(), own.Name); len(own.Status.ReservedFor) != 1 || own.Status.ReservedFor[0].UID != types.UID("p") {
			t.Errorf("reserved for %v", own.Status.ReservedFor)
		}
		p, _ = pods.Get(t.Context(), "p")
		p = p.DeepCopy()
		p.Status.Phase = corev1.PodSucceeded
		pods.UpdateStatus(t.Context(), p)
		rest()
		if c, err := claims.Get(t.Context(), own.Name); !apierrors.IsNotFound(err) {
			t.Errorf("the claim of a pod that is done is kept: %+v", c)
		}
	})
}

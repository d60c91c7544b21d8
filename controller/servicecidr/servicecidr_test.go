package servicecidr

import (
	"testing"
	"testing/synctest"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

func cidr(name string, ranges ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: ranges}}
}

func address(ip string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{networkingv1.LabelManagedBy: managedBy}}}
}

func TestFree(t *testing.T) {
	wide, narrow, twin, other := cidr("wide", "10.0.0.0/16"), cidr("narrow", "10.0.1.0/24"), cidr("twin", "10.0.0.0/16"), cidr("other", "10.9.0.0/24")
	in := []*networkingv1.IPAddress{address("10.0.2.5"), address("10.0.1.5")}
	for name, c := range map[string]struct {
		of   *networkingv1.ServiceCIDR
		all  []*networkingv1.ServiceCIDR
		want bool
	}{
		"within a wider one": {narrow, []*networkingv1.ServiceCIDR{wide, narrow}, true},
		"the same again":     {wide, []*networkingv1.ServiceCIDR{wide, twin}, true},
		"addresses hang on":  {wide, []*networkingv1.ServiceCIDR{wide, narrow}, false},
		"alone":              {narrow, []*networkingv1.ServiceCIDR{narrow, other}, false},
		"empty":              {other, []*networkingv1.ServiceCIDR{narrow, other}, true},
	} {
		if got := free(c.of, c.all, in); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := fake.New(cidr("a", "10.0.0.0/24"), address("10.0.0.7"))
		d := controller.WithClient(srv)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		ranges := client.Of[networkingv1.ServiceCIDR](srv, "")
		ready := func(status metav1.ConditionStatus, reason string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			c, err := ranges.Get(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if k := meta.FindStatusCondition(c.Status.Conditions, "Ready"); k == nil || k.Status != status || k.Reason != reason || len(c.Finalizers) != 1 {
				t.Errorf("%v %+v", c.Finalizers, c.Status)
			}
		}
		ready(metav1.ConditionTrue, "")
		ranges.Delete(t.Context(), "a", nil)
		ready(metav1.ConditionFalse, "Terminating")
		client.Of[networkingv1.IPAddress](srv, "").Delete(t.Context(), "10.0.0.7", nil)
		time.Sleep(7 * time.Second)
		if _, err := ranges.Get(t.Context(), "a"); err != nil {
			t.Error("went before servers could have heard of it")
		}
		time.Sleep(5 * time.Second)
		if _, err := ranges.Get(t.Context(), "a"); !apierrors.IsNotFound(err) {
			t.Errorf("still there: %v", err)
		}
	})
}

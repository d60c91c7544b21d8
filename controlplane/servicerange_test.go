package controlplane

import (
	"context"
	"net/netip"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
	"github.com/sampan-dev/sampan/kit/run"
)

func TestTheDefaultRangeComesBack(t *testing.T) {
	b, gr := requesttest.New(), schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}
	ranges := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	if err := serviceRange(ranges)(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("keep", func(ctx context.Context) error { return keepServiceRange(ctx, b, ranges) })
	defer func() { g.Stop(); g.Wait() }()
	first, err := b.Get(t.Context(), gr, "", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for range 300 { // the watch may begin after a deletion, and then another is needed
		if err := b.Delete(t.Context(), gr, "", "kubernetes", nil); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		for range 20 {
			if now, err := b.Get(t.Context(), gr, "", "kubernetes"); err == nil && now.GetUID() != first.GetUID() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := serviceRange(ranges)(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if first, err = b.Get(t.Context(), gr, "", "kubernetes"); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("the range did not come back")
}

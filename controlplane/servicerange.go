package controlplane

import (
	"context"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// serviceRange makes the ServiceCIDR of the ranges that the server was started
// with; one that was of the first range only gets the second, too.
func serviceRange(ranges []netip.Prefix) func(ctx context.Context, b request.Backend) error {
	return func(ctx context.Context, b request.Backend) error {
		gr := schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}
		var want []string
		for _, p := range ranges {
			want = append(want, p.Masked().String())
		}
		if _, err := b.Get(ctx, gr, "", "kubernetes"); err == nil {
			if len(want) < 2 {
				return nil
			}
			_, err = b.Modify(ctx, gr, "", "kubernetes", "", func(o api.Object) error {
				if c, ok := o.(*networkingv1.ServiceCIDR); ok && slices.Equal(c.Spec.CIDRs, want[:1]) {
					c.Spec.CIDRs = want
				}
				return nil
			})
			return err
		}
		_, err := b.Create(ctx, gr, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: want}}, &metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	}
}

// keepServiceRange makes the object anew when somebody deleted it, as upstream.
func keepServiceRange(ctx context.Context, b request.Backend, ranges []netip.Prefix) error {
	gone := make(chan struct{}, 1)
	g := run.New(ctx)
	g.Go("service ranges", func(ctx context.Context) error {
		gr := schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}
		err := b.Changes(ctx, gr, func(old, now api.Object) {
			if now == nil && old.GetName() == "kubernetes" {
				select {
				case gone <- struct{}{}:
				default:
				}
			}
		})
		if apierrors.IsNotFound(err) { // the kind is switched off
			return nil
		}
		return err
	})
	g.Go("default service range", func(ctx context.Context) error {
		for {
			select {
			case <-gone:
			case <-ctx.Done():
				return nil
			}
			for serviceRange(ranges)(ctx, b) != nil && clock.Sleep(ctx, time.Second) == nil {
			}
		}
	})
	return g.Wait()
}

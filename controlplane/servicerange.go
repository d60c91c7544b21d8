package controlplane

import (
	"context"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
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

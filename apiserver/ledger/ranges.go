package ledger

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/storage"
)

func serviceCIDRs() schema.GroupResource {
	return schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}
}

// rangeOf is what the ledger knows of a ServiceCIDR.
type rangeOf struct {
	name     string
	since    time.Time
	prefixes []netip.Prefix
	ready    bool
}

// maxRange6 is how large an IPv6 range may be to be handed out of, as upstream.
const maxRange6 = 64

func rangeFrom(c *networkingv1.ServiceCIDR) rangeOf {
	// A range nobody has judged yet is good: controllers may be away.
	ready := meta.FindStatusCondition(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
	r := rangeOf{name: c.Name, since: c.CreationTimestamp.Time,
		ready: c.DeletionTimestamp == nil && (ready == nil || ready.Status == metav1.ConditionTrue)}
	for _, text := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil && (p.Addr().Is4() || p.Bits() >= maxRange6) {
			r.prefixes = append(r.prefixes, p.Masked())
		}
	}
	return r
}

// readRanges learns which ServiceCIDR objects there are, from the store itself:
// who just made one may use it.
func (l *Ledger) readRanges(ctx context.Context) error {
	page, err := l.store.List(ctx, rangePrefix, storage.ListOptions{})
	if err != nil {
		return fmt.Errorf("ledger: list ranges: %w", err)
	}
	ranges := map[string]rangeOf{}
	for _, r := range page.Records {
		obj, _, err := api.DecodeOwn(api.FormatProtobuf, r.Value, nil)
		if err != nil {
			return fmt.Errorf("ledger: decode %s: %w", r.Key, err)
		}
		switch c := obj.(type) {
		case *networkingv1.ServiceCIDR:
			ranges[c.Name] = rangeFrom(c)
		case *networkingv1beta1.ServiceCIDR: // written by a server of an earlier release
			ranges[c.Name] = rangeFrom(&networkingv1.ServiceCIDR{ObjectMeta: c.ObjectMeta,
				Spec: networkingv1.ServiceCIDRSpec{CIDRs: c.Spec.CIDRs}, Status: networkingv1.ServiceCIDRStatus{Conditions: c.Status.Conditions}})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ranges = ranges
	l.pool()
	return nil
}

// observeRange follows one ServiceCIDR.
func (l *Ledger) observeRange(old, now api.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := now.(*networkingv1.ServiceCIDR); ok && c != nil {
		l.ranges[c.Name] = rangeFrom(c)
	} else if c, ok := old.(*networkingv1.ServiceCIDR); ok && c != nil {
		delete(l.ranges, c.Name)
	}
	l.pool()
}

// pool makes the pools of the ready ranges, the oldest first, each prefix once.
// l.mu is held.
func (l *Ledger) pool() {
	if len(l.ranges) == 0 {
		l.pools = l.own
		l.count()
		return
	}
	var ready []rangeOf
	for _, r := range l.ranges {
		if r.ready {
			ready = append(ready, r)
		}
	}
	slices.SortFunc(ready, func(a, b rangeOf) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.name, b.name)) })
	seen := map[netip.Prefix]bool{}
	l.pools = nil
	for _, r := range ready {
		for _, p := range r.prefixes {
			if !seen[p] {
				seen[p] = true
				l.pools = append(l.pools, newPool(p))
			}
		}
	}
	l.count()
}

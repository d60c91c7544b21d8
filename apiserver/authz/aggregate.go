package authz

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Aggregate keeps the rules of cluster roles with an aggregationRule equal to
// those of the roles they select, until ctx ends.
func (a *RBAC) Aggregate(ctx context.Context) error {
	for {
		if err := a.aggregateOnce(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("aggregate cluster roles", "err", err)
			if clock.Sleep(ctx, retryAggregate) != nil {
				return nil
			}
			continue
		}
		select {
		case <-a.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

const retryAggregate = 500_000_000 // half a second

// aggregateOnce writes every cluster role whose aggregated rules are out of date.
func (a *RBAC) aggregateOnce(ctx context.Context) error {
	a.mu.RLock()
	all := slices.SortedFunc(maps.Values(a.clusterRoles), func(x, y *rbacv1.ClusterRole) int { return cmp.Compare(x.Name, y.Name) })
	a.mu.RUnlock()
	var errs []error
	for name, rules := range aggregated(all) {
		_, err := a.back.Modify(ctx, clusterRolesGR, "", name, "", func(obj api.Object) error {
			obj.(*rbacv1.ClusterRole).Rules = rules
			return nil
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// aggregated returns the right rules of each aggregating role that has others.
func aggregated(all []*rbacv1.ClusterRole) map[string][]rbacv1.PolicyRule {
	out := map[string][]rbacv1.PolicyRule{}
	for _, r := range all {
		if r.AggregationRule == nil || len(r.AggregationRule.ClusterRoleSelectors) == 0 {
			continue
		}
		var rules []rbacv1.PolicyRule
		for _, sel := range r.AggregationRule.ClusterRoleSelectors {
			s, err := metav1.LabelSelectorAsSelector(&sel)
			if err != nil {
				continue // validation refuses such selectors
			}
			for _, part := range all {
				if part.Name == r.Name || !s.Matches(labels.Set(part.Labels)) {
					continue
				}
				for _, rule := range part.Rules {
					if !slices.ContainsFunc(rules, func(o rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(o, rule) }) {
						rules = append(rules, rule)
					}
				}
			}
		}
		if !equality.Semantic.DeepEqual(rules, r.Rules) {
			out[r.Name] = rules
		}
	}
	return out
}

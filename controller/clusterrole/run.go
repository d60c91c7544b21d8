// Package clusterrole fills the rules of aggregated ClusterRoles from the
// ClusterRoles their selectors choose.
package clusterrole

import (
	"context"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

type loop struct {
	*controller.Loop
	roles *client.Mirror[rbacv1.ClusterRole]
}

// New returns the clusterrole-aggregation loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "clusterrole-aggregation", 5, l.reconcile)
	l.roles = controller.Input(l.Loop, func(_, _ *rbacv1.ClusterRole) []controller.Key {
		var keys []controller.Key
		for _, r := range l.roles.List("") {
			if r.AggregationRule != nil {
				keys = append(keys, client.KeyOf(r))
			}
		}
		return keys
	})
	return l
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	r, ok := l.roles.Get("", k.Name)
	if !ok || r.AggregationRule == nil {
		return nil
	}
	rules := aggregate(r, l.roles.List(""))
	if equality.Semantic.DeepEqual(rules, r.Rules) {
		return nil
	}
	next := r.DeepCopy()
	next.Rules = rules
	out, err := client.Of[rbacv1.ClusterRole](l.Client, "").Update(ctx, next)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	controller.Wrote(&l.Unseen, k, l.roles, out)
	return nil
}

// aggregate joins the rules of the chosen roles, in the order of their names,
// each rule once.
func aggregate(r *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	all = slices.SortedFunc(slices.Values(all), func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	var rules []rbacv1.PolicyRule
	for i := range r.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&r.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			continue // validation lets no such selector in
		}
		for _, o := range all {
			if o.Name == r.Name || !sel.Matches(labels.Set(o.Labels)) {
				continue
			}
			for _, rule := range o.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules
}

package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Guard keeps users from granting rights that they do not hold. It stands last
// in the row of admission and cannot be switched off.
type Guard struct {
	rbac *RBAC
	all  request.Authorizer // for the verbs escalate and bind
}

// NewGuard returns the guard; all is the whole chain of authorizers.
func NewGuard(rbac *RBAC, all request.Authorizer) *Guard { return &Guard{rbac, all} }

// Name is for messages only.
func (*Guard) Name() string { return "RBACEscalationGuard" }

// Handles creation and update.
func (*Guard) Handles(op request.Operation) bool { return op == request.Create || op == request.Update }

// Validate refuses roles and bindings that give more than their author has.
func (g *Guard) Validate(ctx context.Context, a *request.Attributes) error {
	if a.Resource.Group != rbacv1.GroupName || a.Subresource != "" || slices.Contains(a.User.Groups, request.Masters) {
		return nil
	}
	var err error
	switch o := a.Object.(type) {
	case *rbacv1.Role:
		old, _ := a.Old.(*rbacv1.Role)
		if old != nil && equality.Semantic.DeepEqual(old.Rules, o.Rules) || g.may(ctx, a, "escalate", "roles", o.Namespace, o.Name) {
			return nil
		}
		err = g.confirm(a.User, o.Namespace, o.Rules)
	case *rbacv1.ClusterRole:
		err = g.clusterRole(ctx, a, o)
	case *rbacv1.RoleBinding:
		old, _ := a.Old.(*rbacv1.RoleBinding)
		if old != nil && equality.Semantic.DeepEqual(old.RoleRef, o.RoleRef) && equality.Semantic.DeepEqual(old.Subjects, o.Subjects) {
			return nil
		}
		err = g.bind(ctx, a, o.RoleRef, o.Namespace)
	case *rbacv1.ClusterRoleBinding:
		old, _ := a.Old.(*rbacv1.ClusterRoleBinding)
		if old != nil && equality.Semantic.DeepEqual(old.RoleRef, o.RoleRef) && equality.Semantic.DeepEqual(old.Subjects, o.Subjects) {
			return nil
		}
		err = g.bind(ctx, a, o.RoleRef, metav1.NamespaceNone)
	}
	if err == nil {
		return nil
	}
	if status := (apierrors.APIStatus)(nil); errors.As(err, &status) {
		return err
	}
	return apierrors.NewForbidden(a.Resource.GroupResource(), a.Object.GetName(), err)
}

func (g *Guard) clusterRole(ctx context.Context, a *request.Attributes, o *rbacv1.ClusterRole) error {
	old, _ := a.Old.(*rbacv1.ClusterRole)
	if g.may(ctx, a, "escalate", "clusterroles", "", o.Name) {
		return nil
	}
	if old != nil && equality.Semantic.DeepEqual(old.Rules, o.Rules) && equality.Semantic.DeepEqual(old.AggregationRule, o.AggregationRule) {
		return nil
	}
	if err := g.confirm(a.User, "", o.Rules); err != nil {
		return err
	}
	grows := o.AggregationRule != nil && len(o.AggregationRule.ClusterRoleSelectors) > 0
	if old != nil && equality.Semantic.DeepEqual(old.AggregationRule, o.AggregationRule) {
		grows = false
	}
	if grows && g.confirm(a.User, "", everything()) != nil {
		return errors.New("must have cluster-admin privileges to use the aggregationRule")
	}
	return nil
}

func everything() []rbacv1.PolicyRule {
	all := []string{"*"}
	return []rbacv1.PolicyRule{{Verbs: all, APIGroups: all, Resources: all}, {Verbs: all, NonResourceURLs: all}}
}

func (g *Guard) bind(ctx context.Context, a *request.Attributes, ref rbacv1.RoleRef, namespace string) error {
	resource, space := "clusterroles", namespace
	if ref.Kind == "Role" {
		resource = "roles"
	}
	if g.may(ctx, a, "bind", resource, space, ref.Name) {
		return nil
	}
	rules, err := g.rbac.roleRules(ref, namespace)
	if err != nil {
		return err
	}
	return g.confirm(a.User, namespace, rules)
}

func (g *Guard) may(ctx context.Context, a *request.Attributes, verb, resource, namespace, name string) bool {
	d, _, _ := g.all.Authorize(ctx, a.User, &request.Info{
		IsResource: true, Verb: verb, Group: rbacv1.GroupName, Version: "v1", Resource: resource, Namespace: namespace, Name: name,
	})
	return d == request.Allow
}

// confirm returns an error that lists the rules u does not hold in namespace.
func (g *Guard) confirm(u *request.User, namespace string, rules []rbacv1.PolicyRule) error {
	owned, errs := g.rbac.rulesFor(u, namespace)
	missing := covers(owned, rules)
	if len(missing) == 0 {
		return nil
	}
	var lines []string
	for _, r := range compact(missing) {
		lines = append(lines, describe(&r))
	}
	slices.Sort(lines)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.Name, u.Groups, strings.Join(slices.Compact(lines), "\n"))
	if len(errs) > 0 {
		text += fmt.Sprintf("; resolution errors: %v", errs)
	}
	return errors.New(text)
}

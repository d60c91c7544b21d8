package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/run"
)

var (
	rolesGR               = schema.GroupResource{Group: rbacv1.GroupName, Resource: "roles"}
	clusterRolesGR        = schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterroles"}
	roleBindingsGR        = schema.GroupResource{Group: rbacv1.GroupName, Resource: "rolebindings"}
	clusterRoleBindingsGR = schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterrolebindings"}
)

// RBAC is the role based authorizer. Make one with NewRBAC, feed it with Fill
// and Run.
type RBAC struct {
	back request.Backend

	mu           sync.RWMutex
	roles        map[string][]rbacv1.PolicyRule // "namespace/name"; "/name" of cluster roles
	clusterRoles map[string]*rbacv1.ClusterRole // for aggregation
	bindings     map[string]*binding            // "namespace/name"; "/name" of cluster bindings
	bySubject    map[subject][]*binding         // each in order of key, so that reasons stay the same
	changed      chan struct{}                  // a cluster role changed; capacity 1
}

// subject is whom a binding names, within the namespace it counts in ("" all).
type subject struct {
	namespace string
	group     bool
	name      string
}

type binding struct {
	key, kind, shown string // kind RoleBinding or ClusterRoleBinding
	namespace        string
	role             rbacv1.RoleRef
	subjects         map[subject]string // to its description
}

func (b *binding) roleKey() string {
	if b.role.Kind == "Role" {
		return b.namespace + "/" + b.role.Name
	}
	return "/" + b.role.Name
}

// NewRBAC returns an authorizer that allows nothing until it is filled.
func NewRBAC(back request.Backend) *RBAC {
	return &RBAC{
		back: back, roles: map[string][]rbacv1.PolicyRule{}, clusterRoles: map[string]*rbacv1.ClusterRole{},
		bindings: map[string]*binding{}, bySubject: map[subject][]*binding{}, changed: make(chan struct{}, 1),
	}
}

// Fill reads all roles and bindings there are.
func (a *RBAC) Fill(ctx context.Context) error {
	for _, gr := range []schema.GroupResource{clusterRolesGR, rolesGR, clusterRoleBindingsGR, roleBindingsGR} {
		list, err := a.back.List(ctx, gr, "")
		if err != nil {
			return fmt.Errorf("rbac: list %s: %w", gr, err)
		}
		for _, obj := range list {
			a.observe(nil, obj)
		}
	}
	return nil
}

// Run keeps the indexes right until ctx ends.
func (a *RBAC) Run(ctx context.Context) error {
	g := run.New(ctx)
	for _, gr := range []schema.GroupResource{clusterRolesGR, rolesGR, clusterRoleBindingsGR, roleBindingsGR} {
		g.Go("rbac "+gr.Resource, func(ctx context.Context) error { return a.back.Changes(ctx, gr, a.observe) })
	}
	return g.Wait()
}

// observe takes one change into the indexes.
func (a *RBAC) observe(old, now api.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	obj := now
	if obj == nil {
		obj = old
	}
	key := obj.GetNamespace() + "/" + obj.GetName()
	switch o := obj.(type) {
	case *rbacv1.Role:
		if now == nil {
			delete(a.roles, key)
		} else {
			a.roles[key] = o.Rules
		}
	case *rbacv1.ClusterRole:
		if now == nil {
			delete(a.roles, key)
			delete(a.clusterRoles, o.Name)
		} else {
			a.roles[key] = o.Rules
			a.clusterRoles[o.Name] = o
		}
		select {
		case a.changed <- struct{}{}:
		default:
		}
	case *rbacv1.RoleBinding:
		a.replace("RoleBinding/"+key, now != nil, func() *binding {
			return newBinding("RoleBinding", o.Name+"/"+o.Namespace, o.Namespace, o.RoleRef, o.Subjects)
		})
	case *rbacv1.ClusterRoleBinding:
		a.replace("ClusterRoleBinding/"+key, now != nil, func() *binding {
			return newBinding("ClusterRoleBinding", o.Name, "", o.RoleRef, o.Subjects)
		})
	}
}

func (a *RBAC) replace(key string, exists bool, mk func() *binding) {
	if b := a.bindings[key]; b != nil {
		for s := range b.subjects {
			if left := without(a.bySubject[s], key); len(left) > 0 {
				a.bySubject[s] = left
			} else {
				delete(a.bySubject, s)
			}
		}
		delete(a.bindings, key)
	}
	if !exists {
		return
	}
	b := mk()
	b.key = key
	a.bindings[key] = b
	for s := range b.subjects {
		at, _ := slices.BinarySearchFunc(a.bySubject[s], key, byKey)
		a.bySubject[s] = slices.Insert(a.bySubject[s], at, b)
	}
}

func byKey(b *binding, key string) int { return strings.Compare(b.key, key) }

func without(list []*binding, key string) []*binding {
	return slices.DeleteFunc(list, func(b *binding) bool { return b.key == key })
}

func newBinding(kind, shown, namespace string, role rbacv1.RoleRef, subjects []rbacv1.Subject) *binding {
	b := &binding{kind: kind, shown: shown, namespace: namespace, role: role, subjects: map[subject]string{}}
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			b.subjects[subject{namespace, false, s.Name}] = fmt.Sprintf("User %q", s.Name)
		case rbacv1.GroupKind:
			b.subjects[subject{namespace, true, s.Name}] = fmt.Sprintf("Group %q", s.Name)
		case rbacv1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			if ns != "" {
				b.subjects[subject{namespace, false, "system:serviceaccount:" + ns + ":" + s.Name}] = fmt.Sprintf("ServiceAccount %q", s.Name+"/"+ns)
			}
		}
	}
	return b
}

// each calls fn for every binding that counts for u in namespace, cluster
// bindings first, until fn returns false.
func (a *RBAC) each(u *request.User, namespace string, fn func(b *binding, who string) bool) {
	spaces := []string{""}
	if namespace != "" {
		spaces = append(spaces, namespace)
	}
	for _, ns := range spaces {
		for i := -1; i < len(u.Groups); i++ {
			s := subject{ns, false, u.Name}
			if i >= 0 {
				s.group, s.name = true, u.Groups[i]
			}
			for _, b := range a.bySubject[s] {
				if !fn(b, b.subjects[s]) {
					return
				}
			}
		}
	}
}

// Authorize decides by the roles bound to u.
func (a *RBAC) Authorize(_ context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	namespace := i.Namespace
	if !i.IsResource {
		namespace = ""
	}
	reason, allowed := "", false
	var missing []error
	a.each(u, namespace, func(b *binding, who string) bool {
		rules, ok := a.roles[b.roleKey()]
		if !ok {
			missing = append(missing, roleNotFound(b.role))
			return true
		}
		if allowsAny(rules, i) {
			reason = fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s", b.kind, b.shown, b.role.Kind, b.role.Name, who)
			allowed = true
		}
		return !allowed
	})
	if allowed {
		return request.Allow, reason, nil
	}
	if len(missing) > 0 {
		return request.NoOpinion, "RBAC: " + utilerrors.NewAggregate(missing).Error(), nil
	}
	return request.NoOpinion, "", nil
}

func roleNotFound(r rbacv1.RoleRef) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: strings.ToLower(r.Kind)}, r.Name)
}

// rulesFor returns all rules bound to u in namespace, and the roles that are missing.
func (a *RBAC) rulesFor(u *request.User, namespace string) (rules []rbacv1.PolicyRule, errs []error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	seen := map[string]bool{}
	a.each(u, namespace, func(b *binding, _ string) bool {
		if seen[b.roleKey()] {
			return true
		}
		seen[b.roleKey()] = true
		r, ok := a.roles[b.roleKey()]
		if !ok {
			errs = append(errs, roleNotFound(b.role))
		}
		rules = append(rules, r...)
		return true
	})
	return rules, errs
}

// roleRules returns the rules a binding in namespace would grant.
func (a *RBAC) roleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	b := &binding{namespace: namespace, role: ref}
	if rules, ok := a.roles[b.roleKey()]; ok {
		return rules, nil
	}
	return nil, roleNotFound(ref)
}

// Rules lists u's rights in namespace.
func (a *RBAC) Rules(_ context.Context, u *request.User, namespace string) (resource []request.ResourceRule, other []request.NonResourceRule, incomplete bool, err error) {
	rules, errs := a.rulesFor(u, namespace)
	for _, r := range rules {
		if len(r.Resources) > 0 {
			resource = append(resource, request.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		if len(r.NonResourceURLs) > 0 {
			other = append(other, request.NonResourceRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	return resource, other, len(errs) > 0, errors.Join(errs...)
}

// Package rbac defines the four kinds of rbac.authorization.k8s.io.
//
// Job: defaults, rules and columns of Role, ClusterRole, RoleBinding and
// ClusterRoleBinding in v1, and the retired v1beta1 and v1alpha1.
//
// Not its job: authorizing; preventing escalation; aggregating cluster roles.
//
// Invariants: what a binding refers to never changes.
package rbac

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1alpha1 "k8s.io/api/rbac/v1alpha1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	"k8s.io/apimachinery/pkg/api/validation/path"

	"github.com/sampan-dev/sampan/resource"
)

// Kinds returns the definitions.
func Kinds() []resource.Kind {
	return []resource.Kind{clusterRoleBinding(), clusterRole(), roleBinding(), role()}
}

// segment is the rule for names here: they may hold colons and the like.
func segment(name string, prefix bool) []string { return path.ValidatePathSegmentName(name, prefix) }

// created is the column of roles that shows when, not how long ago.
func created[T any](at func(*T) string) resource.Column[T] {
	c := resource.AgeColumn[T]()
	c.Name, c.Type, c.Format = "Created At", "string", ""
	c.Cell = func(obj *T, _ time.Time) any { return at(obj) }
	return c
}

func clusterRole() resource.Kind {
	type T = rbacv1.ClusterRole
	stored := rbacv1.SchemeGroupVersion.WithKind("ClusterRole")
	return resource.Erase(&resource.Def[T]{
		Group: rbacv1.GroupName, Version: "v1", Kind: "ClusterRole", Plural: "clusterroles", ClusterScoped: true,
		Name: segment, Validate: validateClusterRole, Unconditional: true, CreateOnUpdate: true,
		Columns: []resource.Column[T]{
			resource.NameColumn[T](),
			created(func(r *T) string { return when(r.CreationTimestamp.Time) }),
		},
		Also: []resource.Version{
			resource.SameShape[rbacv1beta1.ClusterRole, T](rbacv1beta1.SchemeGroupVersion.WithKind("ClusterRole"), stored),
			old(resource.SameShape[rbacv1alpha1.ClusterRole, T](rbacv1alpha1.SchemeGroupVersion.WithKind("ClusterRole"), stored)),
		},
	})
}

func role() resource.Kind {
	type T = rbacv1.Role
	stored := rbacv1.SchemeGroupVersion.WithKind("Role")
	return resource.Erase(&resource.Def[T]{
		Group: rbacv1.GroupName, Version: "v1", Kind: "Role", Plural: "roles",
		Name: segment, Validate: validateRole, Unconditional: true, CreateOnUpdate: true,
		Columns: []resource.Column[T]{
			resource.NameColumn[T](),
			created(func(r *T) string { return when(r.CreationTimestamp.Time) }),
		},
		Also: []resource.Version{
			resource.SameShape[rbacv1beta1.Role, T](rbacv1beta1.SchemeGroupVersion.WithKind("Role"), stored),
			old(resource.SameShape[rbacv1alpha1.Role, T](rbacv1alpha1.SchemeGroupVersion.WithKind("Role"), stored)),
		},
	})
}

func clusterRoleBinding() resource.Kind {
	type T = rbacv1.ClusterRoleBinding
	stored := rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding")
	return resource.Erase(&resource.Def[T]{
		Group: rbacv1.GroupName, Version: "v1", Kind: "ClusterRoleBinding", Plural: "clusterrolebindings", ClusterScoped: true,
		Name: segment, Validate: validateClusterRoleBinding, Unconditional: true, CreateOnUpdate: true,
		Default: func(b *T) { setDefaults(&b.RoleRef, b.Subjects) },
		Columns: bindingColumns(func(b *T) (rbacv1.RoleRef, []rbacv1.Subject) { return b.RoleRef, b.Subjects }),
		Also: []resource.Version{
			resource.SameShape[rbacv1beta1.ClusterRoleBinding, T](rbacv1beta1.SchemeGroupVersion.WithKind("ClusterRoleBinding"), stored),
			old(alphaSubjects(resource.SameShape[rbacv1alpha1.ClusterRoleBinding, T](rbacv1alpha1.SchemeGroupVersion.WithKind("ClusterRoleBinding"), stored))),
		},
	})
}

func roleBinding() resource.Kind {
	type T = rbacv1.RoleBinding
	stored := rbacv1.SchemeGroupVersion.WithKind("RoleBinding")
	return resource.Erase(&resource.Def[T]{
		Group: rbacv1.GroupName, Version: "v1", Kind: "RoleBinding", Plural: "rolebindings",
		Name: segment, Validate: validateRoleBinding, Unconditional: true, CreateOnUpdate: true,
		Default: func(b *T) { setDefaults(&b.RoleRef, b.Subjects) },
		Columns: bindingColumns(func(b *T) (rbacv1.RoleRef, []rbacv1.Subject) { return b.RoleRef, b.Subjects }),
		Also: []resource.Version{
			resource.SameShape[rbacv1beta1.RoleBinding, T](rbacv1beta1.SchemeGroupVersion.WithKind("RoleBinding"), stored),
			old(alphaSubjects(resource.SameShape[rbacv1alpha1.RoleBinding, T](rbacv1alpha1.SchemeGroupVersion.WithKind("RoleBinding"), stored))),
		},
	})
}

func when(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return t.UTC().Format(time.RFC3339)
}

// bindingColumns show the role and, wide, who has it.
func bindingColumns[T any](parts func(*T) (rbacv1.RoleRef, []rbacv1.Subject)) []resource.Column[T] {
	subjects := func(name string, kind string) resource.Column[T] {
		return resource.Column[T]{
			Name: name, Wide: true, Description: name + " in the " + describe[T](),
			Cell: func(b *T, _ time.Time) any {
				_, all := parts(b)
				return who(all, kind)
			},
		}
	}
	return []resource.Column[T]{
		resource.NameColumn[T](),
		{
			Name: "Role", Description: resource.Doc(rbacv1.RoleBinding{}, "roleRef"),
			Cell: func(b *T, _ time.Time) any {
				ref, _ := parts(b)
				return fmt.Sprintf("%s/%s", ref.Kind, ref.Name)
			},
		},
		resource.AgeColumn[T](),
		subjects("Users", rbacv1.UserKind),
		subjects("Groups", rbacv1.GroupKind),
		subjects("ServiceAccounts", rbacv1.ServiceAccountKind),
	}
}

func describe[T any]() string {
	if _, ok := any(new(T)).(*rbacv1.RoleBinding); ok {
		return "roleBinding"
	}
	return "clusterRoleBinding"
}

// who joins the subjects of a kind.
func who(subjects []rbacv1.Subject, kind string) string {
	var names []string
	for _, s := range subjects {
		switch {
		case s.Kind != kind:
		case kind == rbacv1.ServiceAccountKind:
			names = append(names, s.Namespace+"/"+s.Name)
		default:
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}

// setDefaults names the groups that references mean.
func setDefaults(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	ref.APIGroup = cmp.Or(ref.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if s := &subjects[i]; s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}

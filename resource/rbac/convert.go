package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1alpha1 "k8s.io/api/rbac/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// old marks the alpha version, which went with v1.22.
func old(v resource.Version) resource.Version {
	v.Retired = true
	if v.Warning == "" {
		v.Warning = v.Group + "/" + v.Version + " " + v.Kind + " is deprecated in v1.17+, unavailable in v1.22+; use " +
			rbacv1.GroupName + "/v1 " + v.Kind
	}
	return v
}

// alphaSubjects: in v1alpha1 a subject has a group and version, not a group,
// and the user "*" means everyone who is authenticated.
func alphaSubjects(v resource.Version) resource.Version {
	store, show := v.Store, v.Show
	v.Store = func(src api.Object) (api.Object, error) {
		out, err := store(src)
		if err != nil {
			return nil, err
		}
		from, to := alphaOf(src), subjectsOf(out)
		for i := range to {
			if gv, err := schema.ParseGroupVersion(from[i].APIVersion); err == nil {
				to[i].APIGroup = gv.Group
			}
			switch s := &to[i]; {
			case s.Kind == rbacv1.UserKind && s.Name == "*":
				s.Kind, s.APIGroup, s.Name = rbacv1.GroupKind, rbacv1.GroupName, "system:authenticated"
			case s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind:
				s.APIGroup = rbacv1.GroupName
			}
		}
		return out, nil
	}
	v.Show = func(src api.Object) (api.Object, error) {
		out, err := show(src)
		if err != nil {
			return nil, err
		}
		to := alphaOf(out)
		for i, s := range subjectsOf(src) {
			switch s.Kind {
			case rbacv1.ServiceAccountKind:
				to[i].APIVersion = "v1"
			case rbacv1.UserKind, rbacv1.GroupKind:
				to[i].APIVersion = rbacv1alpha1.SchemeGroupVersion.String()
			default:
				to[i].APIVersion = schema.GroupVersion{Group: s.APIGroup}.String()
			}
		}
		return out, nil
	}
	return v
}

func subjectsOf(obj api.Object) []rbacv1.Subject {
	switch b := obj.(type) {
	case *rbacv1.RoleBinding:
		return b.Subjects
	case *rbacv1.ClusterRoleBinding:
		return b.Subjects
	}
	return nil
}

func alphaOf(obj api.Object) []rbacv1alpha1.Subject {
	switch b := obj.(type) {
	case *rbacv1alpha1.RoleBinding:
		return b.Subjects
	case *rbacv1alpha1.ClusterRoleBinding:
		return b.Subjects
	}
	return nil
}

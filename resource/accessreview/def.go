// Package accessreview defines the four reviews of authorization.k8s.io.
//
// Job: their shape: virtual, created and answered at once.
//
// Not its job: judging them (apiserver/virtual).
//
// Invariants: nothing is stored.
package accessreview

import (
	authorizationv1 "k8s.io/api/authorization/v1"
	authorizationv1beta1 "k8s.io/api/authorization/v1beta1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// Kinds returns the definitions.
func Kinds() []resource.Kind {
	return []resource.Kind{
		review[authorizationv1.LocalSubjectAccessReview, authorizationv1beta1.LocalSubjectAccessReview]("LocalSubjectAccessReview", "localsubjectaccessreviews", true),
		review[authorizationv1.SelfSubjectAccessReview, authorizationv1beta1.SelfSubjectAccessReview]("SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
		review[authorizationv1.SelfSubjectRulesReview, authorizationv1beta1.SelfSubjectRulesReview]("SelfSubjectRulesReview", "selfsubjectrulesreviews", false),
		review[authorizationv1.SubjectAccessReview, authorizationv1beta1.SubjectAccessReview]("SubjectAccessReview", "subjectaccessreviews", false),
	}
}

// review defines one of them, with its retired version.
func review[T, Beta any](kind, plural string, namespaced bool) resource.Kind {
	stored := authorizationv1.SchemeGroupVersion.WithKind(kind)
	v := resource.SameShape[Beta, T](authorizationv1beta1.SchemeGroupVersion.WithKind(kind), stored)
	v.Store, v.Show = keepGroups(v.Store), keepGroups(v.Show)
	return resource.Erase(&resource.Def[T]{
		Group: stored.Group, Version: stored.Version, Kind: kind, Plural: plural,
		ClusterScoped: !namespaced, Virtual: true, Verbs: []string{"create"},
		Columns: []resource.Column[T]{resource.NameColumn[T](), resource.AgeColumn[T]()},
		Also:    []resource.Version{v},
	})
}

// keepGroups carries the groups over, which the retired version spells "group".
func keepGroups(convert func(api.Object) (api.Object, error)) func(api.Object) (api.Object, error) {
	return func(src api.Object) (api.Object, error) {
		out, err := convert(src)
		if err != nil {
			return nil, err
		}
		if from, to := groups(src), groups(out); from != nil && to != nil {
			*to = *from
		}
		return out, nil
	}
}

func groups(obj api.Object) *[]string {
	switch r := obj.(type) {
	case *authorizationv1.SubjectAccessReview:
		return &r.Spec.Groups
	case *authorizationv1.LocalSubjectAccessReview:
		return &r.Spec.Groups
	case *authorizationv1beta1.SubjectAccessReview:
		return &r.Spec.Groups
	case *authorizationv1beta1.LocalSubjectAccessReview:
		return &r.Spec.Groups
	}
	return nil
}

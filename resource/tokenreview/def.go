// Package tokenreview defines the TokenReview and SelfSubjectReview kinds.
//
// Job: their shape: virtual, created and answered at once.
//
// Not its job: judging tokens and the request's own user (apiserver/virtual).
//
// Invariants: nothing is stored.
package tokenreview

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authenticationv1beta1 "k8s.io/api/authentication/v1beta1"

	"github.com/sampan-dev/sampan/resource"
)

const group = authenticationv1.GroupName

// Kinds returns the definitions.
func Kinds() []resource.Kind {
	return []resource.Kind{
		resource.Erase(&resource.Def[authenticationv1.TokenReview]{
			Group: group, Version: "v1", Kind: "TokenReview", Plural: "tokenreviews",
			ClusterScoped: true, Virtual: true, Verbs: []string{"create"},
			Columns: []resource.Column[authenticationv1.TokenReview]{
				resource.NameColumn[authenticationv1.TokenReview](), resource.AgeColumn[authenticationv1.TokenReview](),
			},
			Also: []resource.Version{resource.SameShape[authenticationv1beta1.TokenReview, authenticationv1.TokenReview](
				authenticationv1beta1.SchemeGroupVersion.WithKind("TokenReview"), authenticationv1.SchemeGroupVersion.WithKind("TokenReview"))},
		}),
		resource.Erase(&resource.Def[authenticationv1.SelfSubjectReview]{
			Group: group, Version: "v1", Kind: "SelfSubjectReview", Plural: "selfsubjectreviews",
			ClusterScoped: true, Virtual: true, Verbs: []string{"create"},
			Columns: []resource.Column[authenticationv1.SelfSubjectReview]{
				resource.NameColumn[authenticationv1.SelfSubjectReview](), resource.AgeColumn[authenticationv1.SelfSubjectReview](),
			},
		}),
	}
}

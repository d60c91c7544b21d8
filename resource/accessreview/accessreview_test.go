package accessreview

import (
	"slices"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	authorizationv1beta1 "k8s.io/api/authorization/v1beta1"
)

// The retired version spells groups differently.
func TestGroupsAreCarriedOver(t *testing.T) {
	for _, k := range Kinds() {
		if k.Info().Kind != "SubjectAccessReview" {
			continue
		}
		beta := k.Info().Also[0]
		stored, err := beta.Store(&authorizationv1beta1.SubjectAccessReview{Spec: authorizationv1beta1.SubjectAccessReviewSpec{Groups: []string{"g"}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := stored.(*authorizationv1.SubjectAccessReview).Spec.Groups; !slices.Equal(got, []string{"g"}) {
			t.Errorf("stored %v", got)
		}
		shown, err := beta.Show(stored)
		if err != nil {
			t.Fatal(err)
		}
		if got := shown.(*authorizationv1beta1.SubjectAccessReview).Spec.Groups; !slices.Equal(got, []string{"g"}) {
			t.Errorf("shown %v", got)
		}
		return
	}
	t.Fatal("no SubjectAccessReview")
}

func TestScopes(t *testing.T) {
	for _, k := range Kinds() {
		i := k.Info()
		if i.ClusterScoped == (i.Kind == "LocalSubjectAccessReview") || !i.Virtual || !slices.Equal(i.Verbs, []string{"create"}) {
			t.Errorf("%s: %+v", i.Kind, i)
		}
	}
}

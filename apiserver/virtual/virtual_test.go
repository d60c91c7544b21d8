package virtual

import (
	"context"
	"errors"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

type tokens struct{}

func (tokens) Review(_ context.Context, token string, audiences []string) (*request.User, []string, bool, error) {
	if token != "good" {
		return nil, nil, false, errors.New("invalid bearer token")
	}
	return &request.User{Name: "jane", Groups: []string{"devs"}, Extra: map[string][]string{"k": {"v"}}}, []string{"self"}, true, nil
}

type readers struct{}

func (readers) Authorize(_ context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	switch {
	case u.Name == "jane" && i.Verb == "get" && i.Resource == "pods" && i.Namespace == "y", i.Path == "/version":
		return request.Allow, "because", nil
	case u.Name == "mallory":
		return request.Deny, "never", nil
	}
	return request.NoOpinion, "", errors.New("half blind")
}

func (readers) Rules(context.Context, *request.User, string) ([]request.ResourceRule, []request.NonResourceRule, bool, error) {
	return []request.ResourceRule{{Verbs: []string{"get"}, Resources: []string{"pods"}}}, nil, true, nil
}

func post(t *testing.T, kind string, obj api.Object) (runtime.Object, error) {
	t.Helper()
	v := Kinds(Deps{Tokens: tokens{}, Authorizer: readers{}})[kind]
	ctx := request.WithUser(t.Context(), &request.User{Name: "jane", Groups: []string{"devs"}})
	return v.(request.VirtualCreator).Create(ctx, &request.Info{Namespace: "y"}, obj, nil)
}

func TestTokenReview(t *testing.T) {
	for token, want := range map[string]bool{"good": true, "bad": false} {
		out, err := post(t, "tokenreviews.authentication.k8s.io", &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil {
			t.Fatal(err)
		}
		st := out.(*authenticationv1.TokenReview).Status
		if st.Authenticated != want || want != (st.User.Username == "jane") || want == (st.Error != "") {
			t.Errorf("%s: %+v", token, st)
		}
	}
	if _, err := post(t, "tokenreviews.authentication.k8s.io", &authenticationv1.TokenReview{}); err == nil || err.Error() != "token is required for TokenReview in authentication" {
		t.Error(err)
	}
}

func TestAccessReviews(t *testing.T) {
	pods := func(ns string) *authorizationv1.ResourceAttributes {
		return &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: ns}
	}
	sar := func(user string, ra *authorizationv1.ResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
		out, err := post(t, "subjectaccessreviews.authorization.k8s.io", &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: ra}})
		if err != nil {
			t.Fatal(err)
		}
		return out.(*authorizationv1.SubjectAccessReview).Status
	}
	if st := sar("jane", pods("y")); !st.Allowed || st.Denied || st.Reason != "because" {
		t.Errorf("%+v", st)
	}
	if st := sar("joe", pods("y")); st.Allowed || st.Denied || st.EvaluationError != "half blind" {
		t.Errorf("%+v", st)
	}
	if st := sar("mallory", pods("y")); st.Allowed || !st.Denied {
		t.Errorf("%+v", st)
	}
	out, err := post(t, "selfsubjectaccessreviews.authorization.k8s.io", &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: "get", Path: "/version"}}})
	if err != nil || !out.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed {
		t.Errorf("%+v %v", out, err)
	}
	out, err = post(t, "selfsubjectrulesreviews.authorization.k8s.io", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "y"}})
	if st := out.(*authorizationv1.SelfSubjectRulesReview).Status; err != nil || len(st.ResourceRules) != 1 || st.NonResourceRules == nil || !st.Incomplete {
		t.Errorf("%+v %v", out, err)
	}
	for want, obj := range map[string]api.Object{
		`SubjectAccessReview.authorization.k8s.io "" is invalid: spec.user: Invalid value: "": at least one of user or group must be specified`: &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: pods("y")}},
	} {
		if _, err := post(t, "subjectaccessreviews.authorization.k8s.io", obj); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	for want, spoil := range map[string]func(*authorizationv1.SubjectAccessReview){
		"metadata: Invalid value": func(r *authorizationv1.SubjectAccessReview) { r.Labels = map[string]string{"a": "b"} },
		"when spec.resourceAttributes.fieldSelector is specified": func(r *authorizationv1.SubjectAccessReview) {
			r.Spec.ResourceAttributes.FieldSelector = &authorizationv1.FieldSelectorAttributes{}
		},
		"may not specified at the same time as requirements": func(r *authorizationv1.SubjectAccessReview) {
			r.Spec.ResourceAttributes.LabelSelector = &authorizationv1.LabelSelectorAttributes{RawSelector: "a", Requirements: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Exists"}}}
		},
		"spec.resourceAttributes.fieldSelector.requirements[0].values: Requ": func(r *authorizationv1.SubjectAccessReview) {
			r.Spec.ResourceAttributes.FieldSelector = &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "a", Operator: "In"}}}
		},
	} {
		r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "jane", ResourceAttributes: pods("y")}}
		spoil(r)
		if _, err := post(t, "subjectaccessreviews.authorization.k8s.io", r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	local := &authorizationv1.LocalSubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "jane", ResourceAttributes: pods("z")}}
	if _, err := post(t, "localsubjectaccessreviews.authorization.k8s.io", local); err == nil {
		t.Error("a local review of another namespace passed")
	}
}

func TestComponentStatuses(t *testing.T) {
	v := Kinds(Deps{Components: []Check{
		{"scheduler", func(context.Context) (string, error) { return "ok", nil }},
		{"etcd-0", func(context.Context) (string, error) { return "", errors.New("connection refused") }},
	}})["componentstatuses"]
	ctx, warnings := request.WithWarnings(t.Context())
	out, err := v.(request.VirtualLister).List(ctx, &request.Info{})
	if err != nil {
		t.Fatal(err)
	}
	items := out.(*corev1.ComponentStatusList).Items
	if len(items) != 2 || items[0].Conditions[0].Status != corev1.ConditionTrue || items[0].Conditions[0].Message != "ok" || items[1].Conditions[0].Error != "connection refused" {
		t.Errorf("%+v", items)
	}
	if w := warnings.List(); len(w) != 1 || w[0] != "v1 ComponentStatus is deprecated in v1.19+" {
		t.Errorf("%q", w)
	}
	if _, err := v.(request.VirtualGetter).Get(ctx, &request.Info{Name: "none"}); err == nil || err.Error() != `componentstatuses "none" not found` {
		t.Error(err)
	}
}

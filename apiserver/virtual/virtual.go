// Package virtual computes the kinds that are not stored: token and access
// reviews, the review of oneself, and component statuses.
//
// Job: answering such requests from the authenticator, the authorizers and
// check functions.
//
// Not its job: deciding (authn, authz), serving (rest).
package virtual

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// Check says whether a component works: a message when it does, else an error.
type Check struct {
	Name string
	Fn   func(ctx context.Context) (message string, err error)
}

// Deps are what the answers come from.
type Deps struct {
	Tokens     request.TokenReviewer
	Authorizer request.Authorizer
	Components []Check // scheduler, controller-manager, etcd-0
}

// Kinds returns what serves each virtual kind, by "resource.group".
func Kinds(d Deps) map[string]request.Virtual {
	const authn, authz = "." + authenticationv1.GroupName, "." + authorizationv1.GroupName
	return map[string]request.Virtual{
		"tokenreviews" + authn:              creator(d.tokenReview),
		"selfsubjectreviews" + authn:        creator(d.selfSubjectReview),
		"subjectaccessreviews" + authz:      creator(d.subjectAccessReview),
		"localsubjectaccessreviews" + authz: creator(d.localSubjectAccessReview),
		"selfsubjectaccessreviews" + authz:  creator(d.selfSubjectAccessReview),
		"selfsubjectrulesreviews" + authz:   creator(d.selfSubjectRulesReview),
		"componentstatuses":                 components{d.Components},
	}
}

type creator func(ctx context.Context, i *request.Info, obj api.Object) (runtime.Object, error)

// Create answers a review.
func (c creator) Create(ctx context.Context, i *request.Info, obj api.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	return c(ctx, i, obj)
}

func mistyped(obj any) error {
	return apierrors.NewBadRequest(fmt.Sprintf("unexpected object: %T", obj))
}

func (d Deps) tokenReview(ctx context.Context, _ *request.Info, obj api.Object) (runtime.Object, error) {
	r, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, mistyped(obj)
	}
	if r.Namespace != "" {
		return nil, apierrors.NewBadRequest("namespace is not allowed on this type: " + r.Namespace)
	}
	if r.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	u, matched, known, err := d.Tokens.Review(ctx, r.Spec.Token, r.Spec.Audiences)
	r.Status = authenticationv1.TokenReviewStatus{Authenticated: known}
	if err != nil {
		r.Status.Error = err.Error()
	}
	if !known {
		return r, nil
	}
	r.Status.User = authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups, Extra: extra[authenticationv1.ExtraValue](u)}
	r.Status.Audiences = matched
	return r, nil
}

func extra[V ~[]string](u *request.User) map[string]V {
	if len(u.Extra) == 0 {
		return nil
	}
	out := make(map[string]V, len(u.Extra))
	for k, v := range u.Extra {
		out[k] = V(v)
	}
	return out
}

func (d Deps) selfSubjectReview(ctx context.Context, _ *request.Info, obj api.Object) (runtime.Object, error) {
	r, ok := obj.(*authenticationv1.SelfSubjectReview)
	if !ok {
		return nil, mistyped(obj)
	}
	u := request.UserFrom(ctx)
	r.Status.UserInfo = authenticationv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups, Extra: extra[authenticationv1.ExtraValue](u)}
	return r, nil
}

func (d Deps) subjectAccessReview(ctx context.Context, _ *request.Info, obj api.Object) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return nil, mistyped(obj)
	}
	if errs := append(checkSubject(&r.Spec, field.NewPath("spec")), checkMeta(r.ObjectMeta, "must be empty")...); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName, Kind: "SubjectAccessReview"}, "", errs)
	}
	r.Status = d.decide(ctx, subject(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return r, nil
}

func (d Deps) localSubjectAccessReview(ctx context.Context, i *request.Info, obj api.Object) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.LocalSubjectAccessReview)
	if !ok {
		return nil, mistyped(obj)
	}
	meta := r.ObjectMeta
	meta.Namespace = ""
	errs := append(checkSubject(&r.Spec, field.NewPath("spec")), checkMeta(meta, "must be empty except for namespace")...)
	ra := r.Spec.ResourceAttributes
	if ra != nil && ra.Namespace != i.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec", "resourceAttributes", "namespace"), ra.Namespace, "must match metadata.namespace"))
	}
	if n := r.Spec.NonResourceAttributes; n != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec", "nonResourceAttributes"), n, "disallowed on this kind of request"))
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName, Kind: "LocalSubjectAccessReview"}, "", errs)
	}
	r.Status = d.decide(ctx, subject(&r.Spec), ra, nil)
	return r, nil
}

func (d Deps) selfSubjectAccessReview(ctx context.Context, _ *request.Info, obj api.Object) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
	if !ok {
		return nil, mistyped(obj)
	}
	errs := append(checkAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes, field.NewPath("spec")), checkMeta(r.ObjectMeta, "must be empty")...)
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName, Kind: "SelfSubjectAccessReview"}, "", errs)
	}
	r.Status = d.decide(ctx, request.UserFrom(ctx), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return r, nil
}

// checkMeta refuses metadata: a review is no object that is kept.
func checkMeta(m metav1.ObjectMeta, message string) field.ErrorList {
	m.ManagedFields = nil
	if equality.Semantic.DeepEqual(m, metav1.ObjectMeta{}) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), m, message)}
}

func checkSubject(s *authorizationv1.SubjectAccessReviewSpec, at *field.Path) field.ErrorList {
	errs := checkAttributes(s.ResourceAttributes, s.NonResourceAttributes, at)
	if s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(at.Child("user"), s.User, "at least one of user or group must be specified"))
	}
	return errs
}

func checkAttributes(ra *authorizationv1.ResourceAttributes, nra *authorizationv1.NonResourceAttributes, at *field.Path) (errs field.ErrorList) {
	if ra != nil && nra != nil {
		errs = append(errs, field.Invalid(at.Child("nonResourceAttributes"), nra, "cannot be specified in combination with resourceAttributes"))
	}
	if ra == nil && nra == nil {
		errs = append(errs, field.Invalid(at.Child("resourceAttributes"), ra, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if ra != nil {
		errs = append(errs, checkSelectors(ra, at.Child("resourceAttributes"))...)
	}
	return errs
}

// checkSelectors judges the selectors of a review. Operators of a later release
// are let through: authorizers leave out what they do not know.
func checkSelectors(ra *authorizationv1.ResourceAttributes, at *field.Path) (errs field.ErrorList) {
	forms := func(at *field.Path, raw string, requirements int) {
		if raw != "" && requirements > 0 {
			errs = append(errs, field.Invalid(at.Child("rawSelector"), raw, "may not specified at the same time as requirements"))
		}
		if raw == "" && requirements == 0 {
			errs = append(errs, field.Required(at.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", at)))
		}
	}
	if f := ra.FieldSelector; f != nil {
		at := at.Child("fieldSelector")
		forms(at, f.RawSelector, len(f.Requirements))
		for i, r := range f.Requirements {
			errs = append(errs, metavalidation.ValidateFieldSelectorRequirement(r, metavalidation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	if l := ra.LabelSelector; l != nil {
		at := at.Child("labelSelector")
		forms(at, l.RawSelector, len(l.Requirements))
		for i, r := range l.Requirements {
			errs = append(errs, metavalidation.ValidateLabelSelectorRequirement(r, metavalidation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

func subject(s *authorizationv1.SubjectAccessReviewSpec) *request.User {
	u := &request.User{Name: s.User, UID: s.UID, Groups: s.Groups, Extra: map[string][]string{}}
	for k, v := range s.Extra {
		u.Extra[k] = v
	}
	return u
}

func (d Deps) decide(ctx context.Context, u *request.User, ra *authorizationv1.ResourceAttributes, nra *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	i := &request.Info{}
	if ra != nil {
		i = &request.Info{
			IsResource: true, Verb: ra.Verb, Group: ra.Group, Version: cmp.Or(ra.Version, "*"), Resource: ra.Resource,
			Subresource: ra.Subresource, Namespace: ra.Namespace, Name: ra.Name,
		}
		i.FieldSelector, i.LabelSelector = selectors(ra)
	} else if nra != nil {
		i.Verb, i.Path = nra.Verb, nra.Path
	}
	decision, reason, err := d.Authorizer.Authorize(ctx, u, i)
	st := authorizationv1.SubjectAccessReviewStatus{Allowed: decision == request.Allow, Denied: decision == request.Deny, Reason: reason}
	if err != nil {
		st.EvaluationError = err.Error()
	}
	return st
}

// selectors writes the selectors of a review as a list request carries them.
func selectors(ra *authorizationv1.ResourceAttributes) (field, label string) {
	if f := ra.FieldSelector; f != nil {
		field = f.RawSelector
		var parts []fields.Selector
		for _, r := range f.Requirements {
			switch {
			case len(r.Values) != 1: // left out: what remains asks for more
			case r.Operator == metav1.FieldSelectorOpIn:
				parts = append(parts, fields.OneTermEqualSelector(r.Key, r.Values[0]))
			case r.Operator == metav1.FieldSelectorOpNotIn:
				parts = append(parts, fields.OneTermNotEqualSelector(r.Key, r.Values[0]))
			}
		}
		if len(parts) > 0 {
			field = fields.AndSelectors(parts...).String()
		}
	}
	if l := ra.LabelSelector; l != nil {
		label = l.RawSelector
		s := metav1.LabelSelector{MatchExpressions: l.Requirements}
		if sel, err := metav1.LabelSelectorAsSelector(&s); err == nil && len(l.Requirements) > 0 && sel != labels.Nothing() {
			label = sel.String()
		}
	}
	return field, label
}

func (d Deps) selfSubjectRulesReview(ctx context.Context, _ *request.Info, obj api.Object) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return nil, mistyped(obj)
	}
	if r.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	lister, ok := d.Authorizer.(request.RuleLister)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%T cannot list rules", d.Authorizer))
	}
	resources, others, incomplete, err := lister.Rules(ctx, request.UserFrom(ctx), r.Spec.Namespace)
	st := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: incomplete,
	}
	for _, x := range resources {
		st.ResourceRules = append(st.ResourceRules, authorizationv1.ResourceRule(x))
	}
	for _, x := range others {
		st.NonResourceRules = append(st.NonResourceRules, authorizationv1.NonResourceRule(x))
	}
	if err != nil {
		st.EvaluationError = err.Error()
	}
	r.Status = st
	return r, nil
}

// components serves the statuses of the control plane's parts.
type components struct{ checks []Check }

// Get answers for one component.
func (c components) Get(ctx context.Context, i *request.Info) (runtime.Object, error) {
	k := slices.IndexFunc(c.checks, func(c Check) bool { return c.Name == i.Name })
	if k < 0 {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "componentstatuses"}, i.Name)
	}
	return c.status(ctx, c.checks[k]), nil
}

// List answers for all.
func (c components) List(ctx context.Context, _ *request.Info) (runtime.Object, error) {
	request.Warn(ctx, "v1 ComponentStatus is deprecated in v1.19+")
	out := &corev1.ComponentStatusList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ComponentStatusList"}, Items: []corev1.ComponentStatus{}}
	for _, k := range c.checks {
		out.Items = append(out.Items, *c.status(ctx, k))
	}
	return out, nil
}

func (components) status(ctx context.Context, k Check) *corev1.ComponentStatus {
	cond := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue}
	var err error
	if cond.Message, err = k.Fn(ctx); err != nil {
		cond.Status, cond.Error, cond.Message = corev1.ConditionFalse, err.Error(), ""
	}
	return &corev1.ComponentStatus{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ComponentStatus"},
		ObjectMeta: metav1.ObjectMeta{Name: k.Name},
		Conditions: []corev1.ComponentCondition{cond},
	}
}

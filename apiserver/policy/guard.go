package policy

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// guard keeps users from policies over parameters they may not read: what a
// policy says about a refusal could tell them.
func (p *Policies) guard(ctx context.Context, a *request.Attributes) error {
	if a.Resource.Group != admissionv1.GroupName || a.Subresource != "" || a.Object == nil || p.deps.Authorizer == nil ||
		a.User == nil || slices.Contains(a.User.Groups, request.Masters) {
		return nil
	}
	var err error
	at := field.NewPath("spec", "paramKind")
	switch o := a.Object.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		was, _ := a.Old.(*admissionv1.ValidatingAdmissionPolicy)
		if was == nil || !equality.Semantic.DeepEqual(was.Spec.ParamKind, o.Spec.ParamKind) {
			err = p.mayReadKind(ctx, a.User, o.Spec.ParamKind)
		}
	case *admissionv1.MutatingAdmissionPolicy:
		was, _ := a.Old.(*admissionv1.MutatingAdmissionPolicy)
		if was == nil || !equality.Semantic.DeepEqual(was.Spec.ParamKind, o.Spec.ParamKind) {
			err = p.mayReadKind(ctx, a.User, o.Spec.ParamKind)
		}
	case *admissionv1.ValidatingAdmissionPolicyBinding:
		at = field.NewPath("spec", "paramRef")
		was, _ := a.Old.(*admissionv1.ValidatingAdmissionPolicyBinding)
		if was == nil || was.Spec.PolicyName != o.Spec.PolicyName || !equality.Semantic.DeepEqual(was.Spec.ParamRef, o.Spec.ParamRef) {
			err = p.mayReadRef(ctx, a.User, validatingSort, o.Spec.PolicyName, o.Spec.ParamRef)
		}
	case *admissionv1.MutatingAdmissionPolicyBinding:
		at = field.NewPath("spec", "paramRef")
		was, _ := a.Old.(*admissionv1.MutatingAdmissionPolicyBinding)
		if was == nil || was.Spec.PolicyName != o.Spec.PolicyName || !equality.Semantic.DeepEqual(was.Spec.ParamRef, o.Spec.ParamRef) {
			err = p.mayReadRef(ctx, a.User, mutatingSort, o.Spec.PolicyName, o.Spec.ParamRef)
		}
	}
	if err == nil {
		return nil
	}
	return apierrors.NewInvalid(a.Kind.GroupKind(), a.Name, field.ErrorList{field.Forbidden(at, err.Error())})
}

// readable is what a parameter's kind is called by authorizers; "*" for what is unknown.
func (p *Policies) readable(kind *admissionv1.ParamKind) (i request.Info, unread, unknown bool) {
	i = request.Info{IsResource: true, Prefix: "apis", Group: "*", Version: "*", Resource: "*"}
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return i, true, false
	}
	i.Group, i.Version = gv.Group, gv.Version
	way, _, _, ok := p.deps.Catalog.Resource(gv.WithKind(kind.Kind))
	if !ok {
		return i, false, true
	}
	i.Resource = way.Resource.Resource
	return i, false, false
}

func (p *Policies) may(ctx context.Context, u *request.User, i *request.Info) (bool, error) {
	d, _, err := p.deps.Authorizer.Authorize(ctx, u, i)
	if d == request.Allow {
		return true, nil
	}
	return false, err
}

// who writes a user as refusals about parameters show it.
func who(u *request.User) string {
	return fmt.Sprintf("&{%s %s %v %v}", u.Name, u.UID, u.Groups, u.Extra)
}

func (p *Policies) mayReadKind(ctx context.Context, u *request.User, kind *admissionv1.ParamKind) error {
	if kind == nil {
		return nil
	}
	i, _, _ := p.readable(kind)
	i.Verb, i.Name, i.Namespace = "get", "*", "*"
	ok, err := p.may(ctx, u, &i)
	if ok || err != nil {
		return err
	}
	return fmt.Errorf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`, who(u), kind.Kind, kind.APIVersion)
}

func (p *Policies) mayReadRef(ctx context.Context, u *request.User, s *sort, policy string, ref *admissionv1.ParamRef) error {
	if ref == nil {
		return nil
	}
	i := request.Info{IsResource: true, Prefix: "apis", Group: "*", Version: "*", Resource: "*"}
	var kind *admissionv1.ParamKind
	unread, unknown := false, false
	obj, lost := p.deps.Back.Get(ctx, s.policies, "", policy)
	switch o := obj.(type) {
	case *admissionv1.ValidatingAdmissionPolicy:
		kind = o.Spec.ParamKind
	case *admissionv1.MutatingAdmissionPolicy:
		kind = o.Spec.ParamKind
	}
	if kind != nil {
		i, unread, unknown = p.readable(kind)
	}
	i.Verb, i.Name, i.Namespace = "get", ref.Name, ref.Namespace
	if ref.Name == "" {
		i.Verb = "list"
	}
	ok, err := p.may(ctx, u, &i)
	const rest = `to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`
	switch {
	case ok || err != nil:
		return err
	case lost != nil:
		return fmt.Errorf("unable to get policy %s "+rest, policy, who(u), i.Verb)
	case unread:
		return fmt.Errorf("unable to parse paramKind %v "+rest, kind, who(u), i.Verb)
	case unknown:
		return fmt.Errorf("unable to resolve paramKind %v "+rest, kind, who(u), i.Verb)
	}
	return fmt.Errorf(`user %v does not have "%v" permission on the object referenced by paramRef`, i.Verb, who(u))
}

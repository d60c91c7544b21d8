package crd

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	schemaobjectmeta "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// Validate judges an object by its version's schema and rules. What was wrong
// before and did not change is let through.
func (k *kind) Validate(next, prev api.Object) field.ErrorList {
	r, err := k.rules()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if errs := k.typeMeta(next); len(errs) > 0 {
		return errs
	}
	obj := content(next)
	var errs field.ErrorList
	var old map[string]any
	var options []cel.Option
	var same *common.CorrelatedObject
	sure := r.surely(obj)
	if prev == nil {
		if !sure {
			errs = schemavalidation.ValidateCustomResource(nil, obj, r.whole)
		}
	} else {
		old = content(prev)
		same = common.NewCorrelatedObject(obj, old, &model.Structural{Structural: r.structural})
		if !sure {
			errs = schemavalidation.ValidateCustomResourceUpdate(nil, obj, old, r.whole, schemavalidation.WithRatcheting(same))
		}
		options = append(options, cel.WithRatcheting(same))
	}
	errs = append(errs, scaleSpecErrors(obj, r.scale)...)
	errs = append(errs, scaleStatusErrors(obj, r.scale)...)
	if r.plainly.embedded {
		errs = append(errs, schemaobjectmeta.Validate(context.Background(), nil, obj, r.structural, false)...)
	}
	errs = append(errs, r.duplicates(obj, old)...)
	errs = append(errs, r.judge(obj, old, errs, options)...)
	if same != nil {
		k.f.shared.met.ratcheting.Observe(same.Duration.Seconds())
	}
	return errs
}

// duplicates are what is twice in sets and maps, unless it was so before.
func (r *rules) duplicates(obj, old map[string]any) field.ErrorList {
	if r.plainly.isUnique(obj) {
		return nil
	}
	found := listtype.ValidateListSetsAndMaps(nil, r.structural, obj)
	if len(found) > 0 && old != nil && len(listtype.ValidateListSetsAndMaps(nil, r.structural, old)) > 0 {
		return nil
	}
	return found
}

// judge runs the rules, unless what is wrong already makes them meaningless.
func (r *rules) judge(obj, old map[string]any, errs field.ErrorList, options []cel.Option) field.ErrorList {
	if r.cel == nil {
		return nil
	}
	for _, e := range errs {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return field.ErrorList{field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
		}
	}
	if r.quantities {
		if at, text := immense(nil, obj); text != "" {
			return field.ErrorList{field.Invalid(at, text, "validation rules read quantities, of which the exponent must not be below -999")}
		}
	}
	var before any // an untyped nil when there is none
	if old != nil {
		before = old
	}
	found, _ := r.cel.Validate(context.Background(), nil, r.structural, obj, before, celconfig.RuntimeCELCostBudget, options...)
	return found
}

func (k *kind) typeMeta(obj api.Object) field.ErrorList {
	var errs field.ErrorList
	u := obj.(*unstructured.Unstructured)
	if u.GetKind() != k.info.Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), u.GetKind(), "must be "+k.info.Kind))
	}
	if want := k.info.GroupVersionKind.GroupVersion().String(); u.GetAPIVersion() != want {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), u.GetAPIVersion(), "must be "+want))
	}
	return errs
}

// dotted are the parts of ".spec.replicas".
func dotted(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

func replicasErrors(obj map[string]any, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(obj, dotted(path)...)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}

func scaleSpecErrors(obj map[string]any, s *apiextensions.CustomResourceSubresourceScale) field.ErrorList {
	if s == nil {
		return nil
	}
	return replicasErrors(obj, s.SpecReplicasPath)
}

func scaleStatusErrors(obj map[string]any, s *apiextensions.CustomResourceSubresourceScale) field.ErrorList {
	if s == nil {
		return nil
	}
	errs := replicasErrors(obj, s.StatusReplicasPath)
	if s.LabelSelectorPath != nil {
		if text, _, err := unstructured.NestedString(obj, dotted(*s.LabelSelectorPath)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*s.LabelSelectorPath), text, err.Error()))
		}
	}
	return errs
}

// Warnings advise on the names of finalizers that are new.
func (k *kind) Warnings(next, prev api.Object) []string {
	added := next.GetFinalizers()
	if len(added) == 0 {
		return nil
	}
	if prev != nil {
		old := prev.GetFinalizers()
		added = slices.DeleteFunc(added, func(f string) bool { return slices.Contains(old, f) })
	}
	slices.Sort(added)
	var out []string
	for _, f := range slices.Compact(added) {
		out = append(out, finalizerAdvice(f)...)
	}
	return out
}

func finalizerAdvice(f string) []string {
	var out []string
	for _, m := range validation.IsQualifiedName(f) {
		out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", f, m))
	}
	known := f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents || f == string(corev1.FinalizerKubernetes)
	switch {
	case strings.Contains(f, "/") || known:
	case strings.Contains(f, "."):
		out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", f))
	default:
		out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", f))
	}
	return out
}

// statusSub is the status subresource: it writes the status and nothing else.
type statusSub struct{ k *kind }

func (s *statusSub) Info() resource.SubInfo { return s.k.info.Subs[0] }

func (s *statusSub) Prepare(_ *resource.Request, next, prev api.Object) {
	u := next.(*unstructured.Unstructured)
	status, ok := u.Object["status"]
	managed := u.GetManagedFields()
	*u = *prev.(*unstructured.Unstructured).DeepCopy()
	u.SetManagedFields(managed)
	if ok {
		u.Object["status"] = status
	} else {
		delete(u.Object, "status")
	}
}

func (s *statusSub) Validate(next, prev api.Object) field.ErrorList {
	r, err := s.k.rules()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	if errs := s.k.typeMeta(next); len(errs) > 0 {
		return errs
	}
	obj, old := content(next), content(prev)
	same := common.NewCorrelatedObject(obj, old, &model.Structural{Structural: r.structural})
	var errs field.ErrorList
	if status, ok := obj["status"]; ok {
		var options []schemavalidation.ValidationOption
		if r.structural != nil {
			options = append(options, schemavalidation.WithRatcheting(same.Key("status")))
		}
		errs = schemavalidation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old["status"], r.status, options...)
	}
	errs = append(errs, scaleStatusErrors(obj, r.scale)...)
	errs = append(errs, r.duplicates(obj, old)...)
	return append(errs, r.judge(obj, old, errs, []cel.Option{cel.WithRatcheting(same)})...)
}

func (s *statusSub) Warnings(api.Object, api.Object) []string { return nil }

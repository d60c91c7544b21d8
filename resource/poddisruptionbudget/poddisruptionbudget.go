// Package poddisruptionbudget defines the PodDisruptionBudget.
//
// Job: what the API server knows of budgets, and their retired version.
//
// Not its job: counting (controller), refusing evictions (apiserver).
//
// Invariants: an empty selector means none in v1beta1 and all in v1, and
// neither meaning is lost in the other version.
package poddisruptionbudget

import (
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

type budget = policyv1.PodDisruptionBudget

// Kind is the PodDisruptionBudget.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[budget]{
		Group: "policy", Version: "v1", Kind: "PodDisruptionBudget", Plural: "poddisruptionbudgets",
		Short: []string{"pdb"},
		Prepare: func(_ *resource.Request, next, prev *budget) {
			next.Status = policyv1.PodDisruptionBudgetStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(b *budget) any { return &b.Spec },
		Validate:   validate,
		Subs:       []resource.Sub[budget]{resource.StatusSub(func(next, prev *budget) { next.Spec = *prev.Spec.DeepCopy() }, validateStatus)},
		Columns: []resource.Column[budget]{
			resource.NameColumn[budget](),
			{Name: "Min Available", Description: "The minimum number of pods that must be available.",
				Cell: resource.Cell(func(b *budget) any { return orNone(b.Spec.MinAvailable) })},
			{Name: "Max Unavailable", Description: "The maximum number of pods that may be unavailable.",
				Cell: resource.Cell(func(b *budget) any { return orNone(b.Spec.MaxUnavailable) })},
			{Name: "Allowed Disruptions", Type: "integer", Description: "Calculated number of pods that may be disrupted at this time.",
				Cell: resource.Cell(func(b *budget) any { return int64(b.Status.DisruptionsAllowed) })},
			resource.AgeColumn[budget](),
		},
		ResetFields: []string{"status"},
		Also:        []resource.Version{v1beta1()},
	})
}

func orNone(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}

// The label by which one version says what an empty selector says in the other.
const emptyKey = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

func marked(op metav1.LabelSelectorOperator) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: emptyKey, Operator: op}}}
}

func v1beta1() resource.Version {
	gvk := func(version string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: "policy", Version: version, Kind: "PodDisruptionBudget"}
	}
	v := resource.SameShape[policyv1beta1.PodDisruptionBudget, budget](gvk("v1beta1"), gvk("v1"))
	store, show := v.Store, v.Show
	empty := &metav1.LabelSelector{}
	v.Store = func(src api.Object) (api.Object, error) {
		out, err := store(src)
		if err != nil {
			return nil, err
		}
		switch b := out.(*budget); {
		case equality.Semantic.DeepEqual(b.Spec.Selector, empty):
			b.Spec.Selector = marked(metav1.LabelSelectorOpExists)
		case equality.Semantic.DeepEqual(b.Spec.Selector, marked(metav1.LabelSelectorOpDoesNotExist)):
			b.Spec.Selector = empty.DeepCopy()
		}
		return out, nil
	}
	v.Show = func(src api.Object) (api.Object, error) {
		out, err := show(src)
		if err != nil {
			return nil, err
		}
		switch b := out.(*policyv1beta1.PodDisruptionBudget); {
		case equality.Semantic.DeepEqual(b.Spec.Selector, marked(metav1.LabelSelectorOpExists)):
			b.Spec.Selector = empty.DeepCopy()
		case equality.Semantic.DeepEqual(b.Spec.Selector, empty):
			b.Spec.Selector = marked(metav1.LabelSelectorOpDoesNotExist)
		}
		return out, nil
	}
	return v
}

func validate(next, _ *budget) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, *s, "minAvailable and maxUnavailable cannot be both set"))
	}
	for name, v := range map[string]*intstr.IntOrString{"minAvailable": s.MinAvailable, "maxUnavailable": s.MaxUnavailable} {
		errs = append(errs, podspec.IntOrPercent(v, path.Child(name))...)
		errs = append(errs, podspec.AtMostAll(v, path.Child(name))...)
	}
	errs = append(errs, metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	if p := s.UnhealthyPodEvictionPolicy; p != nil && *p != policyv1.IfHealthyBudget && *p != policyv1.AlwaysAllow {
		errs = append(errs, field.NotSupported(path.Child("unhealthyPodEvictionPolicy"), *p, []policyv1.UnhealthyPodEvictionPolicyType{policyv1.AlwaysAllow, policyv1.IfHealthyBudget}))
	}
	return errs
}

func validateStatus(next, _ *budget) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := metavalidation.ValidateConditions(s.Conditions, path.Child("conditions"))
	errs = append(errs, podspec.NonNegative(path, map[string]int32{
		"disruptionsAllowed": s.DisruptionsAllowed, "currentHealthy": s.CurrentHealthy,
		"desiredHealthy": s.DesiredHealthy, "expectedPods": s.ExpectedPods,
	})...)
	return append(errs, apivalidation.ValidateNonnegativeField(s.ObservedGeneration, path.Child("observedGeneration"))...)
}

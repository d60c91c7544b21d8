package admissionregistration

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/expression"
)

func validateMutatingBinding(next, _ *mutatingBinding) field.ErrorList {
	return validateBound(next.Spec.PolicyName, next.Spec.ParamRef, next.Spec.MatchResources, field.NewPath("spec"))
}

func validateMutatingPolicy(next, prev *mutatingPolicy) field.ErrorList {
	k := kept{}
	if prev != nil {
		k.conditionsSame = equality.Semantic.DeepEqual(next.Spec.ParamKind, prev.Spec.ParamKind) &&
			equality.Semantic.DeepEqual(next.Spec.MatchConditions, prev.Spec.MatchConditions)
		k.conditions, k.other = sets.New[string](), sets.New[string]()
		for _, m := range prev.Spec.MatchConditions {
			k.conditions.Insert(m.Expression)
		}
		for _, m := range prev.Spec.Mutations {
			if m.ApplyConfiguration != nil {
				k.other.Insert(m.ApplyConfiguration.Expression)
			}
			if m.JSONPatch != nil {
				k.other.Insert(m.JSONPatch.Expression)
			}
		}
	}
	return validateMutatingSpec(&next.Spec, k, field.NewPath("spec"))
}

func validateMutatingSpec(s *admissionv1.MutatingAdmissionPolicySpec, k kept, path *field.Path) field.ErrorList {
	errs := validateScope(scoped{s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions}, k, path)
	if s.MatchConstraints != nil {
		for _, r := range s.MatchConstraints.ResourceRules {
			for _, op := range r.Operations { // what goes away cannot be changed
				if !slices.Contains(mutations, op) {
					errs = append(errs, field.NotSupported(path.Child("matchConstraints", "resourceRules", "operations"), op, mutations))
				}
			}
		}
	}
	checker := expression.NewChecker(true)
	scope := expression.Scope{Params: s.ParamKind != nil, Authorizer: true}
	errs = append(errs, validateVariables(checker, s.Variables, scope, k, path.Child("variables"))...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(path.Child("mutations"), "mutations must contain at least one item"))
	}
	scope.Patches = true
	for i := range s.Mutations {
		errs = append(errs, validateMutation(checker, &s.Mutations[i], scope, k, path.Child("mutations").Index(i))...)
	}
	if s.ReinvocationPolicy == "" {
		return append(errs, field.Required(path.Child("reinvocationPolicy"), ""))
	}
	return append(errs, oneOf(path.Child("reinvocationPolicy"), &s.ReinvocationPolicy, reinvocations)...)
}

func validateMutation(c *expression.Checker, m *admissionv1.Mutation, scope expression.Scope, k kept, path *field.Path) (errs field.ErrorList) {
	apply, patch := path.Child("applyConfiguration"), path.Child("jsonPatch")
	check := func(at *field.Path, text string, as func(string) *expression.Accessor) field.ErrorList {
		trimmed := strings.TrimSpace(text)
		if trimmed == "" {
			return field.ErrorList{field.Required(at.Child("expression"), "")}
		}
		scope.Stored = k.other.Has(text)
		return c.Check(at.Child("expression"), as(trimmed), scope, trimmed)
	}
	switch m.PatchType {
	case "":
		errs = append(errs, field.Required(path.Child("patchType"), ""))
	case admissionv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			errs = append(errs, field.Required(patch, "must be specified when patchType is JSONPatch"))
		} else {
			errs = append(errs, check(patch, m.JSONPatch.Expression, expression.Patch)...)
		}
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
	case admissionv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			errs = append(errs, field.Required(apply, "must be specified when patchType is ApplyConfiguration"))
		} else {
			errs = append(errs, check(apply, m.ApplyConfiguration.Expression, expression.Configuration)...)
		}
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(patch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("patchType"), m.PatchType,
			[]admissionv1.PatchType{admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch}))
	}
	return errs
}

package podspec

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Selector judges a workload's selector, which may not be left out or empty;
// kind is how the refusal calls the workload.
func Selector(s *metav1.LabelSelector, kind string, path *field.Path) field.ErrorList {
	if s == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path, s, "empty selector is invalid for "+kind))
	}
	return errs
}

// LongRunning judges the template of a workload whose pods never end; path is
// that of the workload's spec.
func LongRunning(t *corev1.PodTemplateSpec, s *metav1.LabelSelector, path *field.Path) field.ErrorList {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return field.ErrorList{field.Invalid(path.Child("selector"), s, "invalid label selector")}
	}
	at := path.Child("template")
	errs := Matches(t, selector, at)
	errs = append(errs, ValidateTemplate(t, at)...)
	if t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("spec", "restartPolicy"), t.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	return errs
}

// Matches demands that a workload selects the pods it makes.
func Matches(t *corev1.PodTemplateSpec, s labels.Selector, template *field.Path) field.ErrorList {
	if !s.Empty() && !s.Matches(labels.Set(t.Labels)) {
		return field.ErrorList{field.Invalid(template.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`")}
	}
	return nil
}

// NoDeadline forbids a deadline to pods that never end.
func NoDeadline(t *corev1.PodTemplateSpec, kind string, template *field.Path) field.ErrorList {
	if t.Spec.ActiveDeadlineSeconds == nil {
		return nil
	}
	return field.ErrorList{field.Forbidden(template.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported")}
}

// IntOrPercent judges a number of pods, plain or as a share of all.
func IntOrPercent(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	if v == nil {
		return nil
	}
	if v.Type == intstr.Int {
		return apivalidation.ValidateNonnegativeField(int64(v.IntValue()), path)
	}
	var errs field.ErrorList
	for _, m := range validation.IsValidPercent(v.StrVal) {
		errs = append(errs, field.Invalid(path, *v, m))
	}
	return errs
}

// AtMostAll forbids shares of more than all.
func AtMostAll(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	if v != nil && v.Type == intstr.String && len(validation.IsValidPercent(v.StrVal)) == 0 {
		if n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true); err == nil && n > 100 {
			return field.ErrorList{field.Invalid(path, *v, "must not be greater than 100%")}
		}
	}
	return nil
}

// IsZero says whether a number of pods is none, however many there are.
func IsZero(v *intstr.IntOrString) bool {
	if v == nil {
		return true
	}
	if v.Type == intstr.Int {
		return v.IntVal == 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true)
	return err == nil && n == 0
}

// NonNegative judges numbers by the names of their fields.
func NonNegative(path *field.Path, values map[string]int32) field.ErrorList {
	var errs field.ErrorList
	for _, name := range sortedKeys(values) {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(values[name]), path.Child(name))...)
	}
	return errs
}

// SelectorFromLabels gives workloads of old versions the selector and labels
// that their templates imply.
func SelectorFromLabels(meta *metav1.ObjectMeta, selector **metav1.LabelSelector, t *corev1.PodTemplateSpec) {
	if t.Labels == nil {
		return
	}
	if *selector == nil {
		*selector = &metav1.LabelSelector{MatchLabels: maps.Clone(t.Labels)}
	}
	if len(meta.Labels) == 0 {
		meta.Labels = maps.Clone(t.Labels)
	}
}

// ScaleSelector words a selector as the scale subresource does.
func ScaleSelector(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	return selector.String()
}

func sortedKeys(m map[string]int32) []string { return slices.Sorted(maps.Keys(m)) }

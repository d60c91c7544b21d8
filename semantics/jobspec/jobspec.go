// Package jobspec knows what a job's specification means before it runs.
//
// Job: validation of JobSpec, for jobs and for the templates of cron jobs.
//
// Not its job: the pod template as such, which the caller judges.
//
// Invariants: pure; error paths and texts are those that stock clients know.
package jobspec

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds that keep a job's status of a size that can be stored.
const (
	maxIndexedParallelism = 100000
	maxRules              = 20
	maxExitCodes          = 255
	maxPatterns           = 20
	maxManagedBy          = 63
)

// Validate judges a specification, save for its selector and template.
func Validate(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name  string
		value *int32
	}{
		{"parallelism", s.Parallelism}, {"completions", s.Completions}, {"backoffLimit", s.BackoffLimit},
		{"ttlSecondsAfterFinished", s.TTLSecondsAfterFinished}, {"backoffLimitPerIndex", s.BackoffLimitPerIndex},
		{"maxFailedIndexes", s.MaxFailedIndexes},
	} {
		if f.value != nil {
			errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*f.value), path.Child(f.name))...)
		}
	}
	if d := s.ActiveDeadlineSeconds; d != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(*d, path.Child("activeDeadlineSeconds"))...)
	}
	if m := s.ManagedBy; m != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(path.Child("managedBy"), *m)...)
		if len(*m) > maxManagedBy {
			errs = append(errs, field.TooLongMaxLength(path.Child("managedBy"), *m, maxManagedBy))
		}
	}
	errs = append(errs, validateMode(s, path)...)
	errs = append(errs, validateRestart(s, path)...)
	errs = append(errs, validateReplacement(s, path.Child("podReplacementPolicy"))...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(s, path.Child("podFailurePolicy"))...)
	}
	if s.SuccessPolicy != nil {
		errs = append(errs, validateSuccessPolicy(s, path.Child("successPolicy"))...)
	}
	return errs
}

// Indexed says whether each completion has a number of its own.
func Indexed(s *batchv1.JobSpec) bool {
	return s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
}

func validateMode(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m := s.CompletionMode; m != nil && *m != batchv1.NonIndexedCompletion && *m != batchv1.IndexedCompletion {
		errs = append(errs, field.NotSupported(path.Child("completionMode"), *m, []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion}))
	}
	if !Indexed(s) {
		if s.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *s.BackoffLimitPerIndex, "requires indexed completion mode"))
		}
		if s.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "requires indexed completion mode"))
		}
		return errs
	}
	if s.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"), fmt.Sprintf("when completion mode is %s", batchv1.IndexedCompletion)))
	}
	if p := s.Parallelism; p != nil && *p > maxIndexedParallelism {
		errs = append(errs, field.Invalid(path.Child("parallelism"), *p, fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxIndexedParallelism, batchv1.IndexedCompletion)))
	}
	if s.MaxFailedIndexes != nil {
		if s.Completions != nil && *s.MaxFailedIndexes > *s.Completions {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *s.MaxFailedIndexes, "must be less than or equal to completions"))
		}
		if s.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
		}
	}
	return errs
}

func validateRestart(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	at, policy := path.Child("template", "spec", "restartPolicy"), s.Template.Spec.RestartPolicy
	switch policy {
	case corev1.RestartPolicyAlways, "":
		// Always is what a template gets by default: the user said nothing.
		return field.ErrorList{field.Required(at, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever))}
	case corev1.RestartPolicyNever:
	case corev1.RestartPolicyOnFailure:
		if s.PodFailurePolicy != nil {
			return field.ErrorList{field.Invalid(at, policy, fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever))}
		}
	default:
		return field.ErrorList{field.NotSupported(at, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever})}
	}
	return nil
}

func validateReplacement(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	p := s.PodReplacementPolicy
	if p == nil || *p == batchv1.Failed {
		return nil
	}
	valid := []batchv1.PodReplacementPolicy{batchv1.Failed, batchv1.TerminatingOrFailed}
	if s.PodFailurePolicy != nil {
		valid = valid[:1]
	}
	if slices.Contains(valid, *p) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, *p, valid)}
}

func validateFailurePolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rules := path.Child("rules")
	if len(s.PodFailurePolicy.Rules) > maxRules {
		errs = append(errs, field.TooMany(rules, len(s.PodFailurePolicy.Rules), maxRules))
	}
	names := map[string]bool{}
	for _, list := range [][]corev1.Container{s.Template.Spec.Containers, s.Template.Spec.InitContainers} {
		for i := range list {
			names[list[i].Name] = true
		}
	}
	for i := range s.PodFailurePolicy.Rules {
		errs = append(errs, validateRule(&s.PodFailurePolicy.Rules[i], s, names, rules.Index(i))...)
	}
	return errs
}

func validateRule(r *batchv1.PodFailurePolicyRule, s *batchv1.JobSpec, names map[string]bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch valid := []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore}; {
	case r.Action == "":
		errs = append(errs, field.Required(path.Child("action"), fmt.Sprintf("valid values: %q", valid)))
	case !slices.Contains(valid, r.Action):
		errs = append(errs, field.NotSupported(path.Child("action"), r.Action, valid))
	case r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil:
		errs = append(errs, field.Invalid(path.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
	}
	switch {
	case r.OnExitCodes != nil && len(r.OnPodConditions) > 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case r.OnExitCodes == nil && len(r.OnPodConditions) == 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	if len(r.OnPodConditions) > maxPatterns {
		errs = append(errs, field.TooMany(path.Child("onPodConditions"), len(r.OnPodConditions), maxPatterns))
	}
	for i, c := range r.OnPodConditions {
		at := path.Child("onPodConditions").Index(i)
		for _, m := range validation.IsQualifiedName(string(c.Type)) {
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, m))
		}
		valid := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		if c.Status == "" {
			errs = append(errs, field.Required(at.Child("status"), fmt.Sprintf("valid values: %q", valid)))
		} else if !slices.Contains(valid, c.Status) {
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, valid))
		}
	}
	if r.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(r.OnExitCodes, names, path.Child("onExitCodes"))...)
	}
	return errs
}

func validateExitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, names map[string]bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	valid := []batchv1.PodFailurePolicyOnExitCodesOperator{batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn}
	if r.Operator == "" {
		errs = append(errs, field.Required(path.Child("operator"), fmt.Sprintf("valid values: %q", valid)))
	} else if !slices.Contains(valid, r.Operator) {
		errs = append(errs, field.NotSupported(path.Child("operator"), r.Operator, valid))
	}
	if r.ContainerName != nil && !names[*r.ContainerName] {
		errs = append(errs, field.Invalid(path.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	values := path.Child("values")
	if len(r.Values) == 0 {
		errs = append(errs, field.Invalid(values, r.Values, "at least one value is required"))
	} else if len(r.Values) > maxExitCodes {
		errs = append(errs, field.TooMany(values, len(r.Values), maxExitCodes))
	}
	for i, v := range r.Values {
		switch {
		case r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && v == 0:
			errs = append(errs, field.Invalid(values.Index(i), v, "must not be 0 for the In operator"))
		case slices.Contains(r.Values[:i], v):
			errs = append(errs, field.Duplicate(values.Index(i), v))
		case i > 0 && v < r.Values[i-1]:
			errs = append(errs, field.Invalid(values, r.Values, "must be ordered"))
		}
	}
	return errs
}

func validateSuccessPolicy(s *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if !Indexed(s) {
		return field.ErrorList{field.Invalid(path, *s.SuccessPolicy, "requires indexed completion mode")}
	}
	var errs field.ErrorList
	rules := path.Child("rules")
	if n := len(s.SuccessPolicy.Rules); n == 0 {
		errs = append(errs, field.Required(rules, "at least one rules must be specified when the successPolicy is specified"))
	} else if n > maxRules {
		errs = append(errs, field.TooMany(rules, n, maxRules))
	}
	for i, r := range s.SuccessPolicy.Rules {
		at := rules.Index(i)
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			errs = append(errs, field.Required(at, "at least one of succeededCount or succeededIndexes must be specified"))
		}
		most := ptr.Deref(s.Completions, 0)
		if r.SucceededIndexes != nil {
			n, err := CountIndexes(*r.SucceededIndexes, most)
			if err != nil {
				errs = append(errs, field.Invalid(at.Child("succeededIndexes"), *r.SucceededIndexes, fmt.Sprintf("error parsing succeededIndexes: %s", err)))
			} else {
				most = n
			}
		}
		if c := r.SucceededCount; c != nil {
			errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*c), at.Child("succeededCount"))...)
			if *c > most {
				errs = append(errs, field.Invalid(at.Child("succeededCount"), *c, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", most)))
			}
		}
	}
	return errs
}

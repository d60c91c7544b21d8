package job

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/semantics/jobspec"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

func validate(next, prev *job) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := validateGenerated(next)
	errs = append(errs, jobspec.Validate(s, path)...)
	errs = append(errs, podspec.ValidateTemplate(&s.Template, path.Child("template"))...)
	if s.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	} else {
		errs = append(errs, metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	}
	if selector, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !selector.Matches(labels.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if n := ptr.Deref(s.Completions, 0); jobspec.Indexed(s) && n > 0 {
		host := fmt.Sprintf("%s-%d", next.Name, n-1)
		if m := validation.IsDNS1123Label(host); len(m) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), next.Name, fmt.Sprintf("will not able to create pod with invalid DNS label: %s", host)))
		}
	}
	if prev != nil {
		errs = append(errs, validateUpdate(next, prev)...)
	}
	return errs
}

// validateGenerated sees that nobody tampered with what generateSelector makes.
func validateGenerated(j *job) field.ErrorList {
	if ptr.Deref(j.Spec.ManualSelector, false) || j.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if j.UID == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "uid"), ""))
	}
	at := field.NewPath("spec", "template", "metadata", "labels")
	want := map[string]string{
		batchv1.ControllerUidLabel: string(j.UID), batchv1.JobNameLabel: j.Name,
		oldUIDLabel: string(j.UID), oldNameLabel: j.Name,
	}
	for _, k := range []string{batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
		switch v, ok := j.Spec.Template.Labels[k]; {
		case !ok:
			errs = append(errs, field.Required(at.Key(k), fmt.Sprintf("must be '%s'", want[k])))
		case v != want[k]:
			errs = append(errs, field.Invalid(at.Key(k), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", want[k])))
		}
	}
	if selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector); err == nil && !selector.Matches(labels.Set(want)) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "selector"), j.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

func validateUpdate(next, prev *job) field.ErrorList {
	n, p, path := &next.Spec, &prev.Spec, field.NewPath("spec")
	same := apivalidation.ValidateImmutableField
	var errs field.ErrorList
	if jobspec.Indexed(n) && !equality.Semantic.DeepEqual(n.Completions, p.Completions) {
		// An indexed job may grow and shrink with its parallelism.
		if ptr.Deref(n.Completions, 0) != ptr.Deref(n.Parallelism, 0) {
			errs = append(errs, field.Invalid(path.Child("completions"), n.Completions, "can only be modified in tandem with spec.parallelism"))
		}
	} else {
		errs = append(errs, same(n.Completions, p.Completions, path.Child("completions"))...)
	}
	errs = append(errs, same(n.Selector, p.Selector, path.Child("selector"))...)
	errs = append(errs, validateTemplateUpdate(n, prev, path.Child("template"))...)
	errs = append(errs, same(n.CompletionMode, p.CompletionMode, path.Child("completionMode"))...)
	errs = append(errs, same(n.PodFailurePolicy, p.PodFailurePolicy, path.Child("podFailurePolicy"))...)
	errs = append(errs, same(n.BackoffLimitPerIndex, p.BackoffLimitPerIndex, path.Child("backoffLimitPerIndex"))...)
	errs = append(errs, same(n.ManagedBy, p.ManagedBy, path.Child("managedBy"))...)
	return append(errs, same(n.SuccessPolicy, p.SuccessPolicy, path.Child("successPolicy"))...)
}

// validateTemplateUpdate lets a job that has not begun be steered to nodes.
func validateTemplateUpdate(s *batchv1.JobSpec, prev *job, path *field.Path) field.ErrorList {
	t, old := s.Template.DeepCopy(), &prev.Spec.Template
	if ptr.Deref(prev.Spec.Suspend, false) && prev.Status.StartTime == nil {
		t.Annotations, t.Labels = old.Annotations, old.Labels
		to, from := &t.Spec, &old.Spec
		switch {
		case from.Affinity != nil && to.Affinity != nil:
			to.Affinity.NodeAffinity = from.Affinity.NodeAffinity
		case from.Affinity == nil && to.Affinity != nil:
			to.Affinity.NodeAffinity = nil
			if *to.Affinity == (corev1.Affinity{}) {
				to.Affinity = nil
			}
		case from.Affinity != nil && to.Affinity == nil:
			to.Affinity = &corev1.Affinity{NodeAffinity: from.Affinity.NodeAffinity}
		}
		to.NodeSelector, to.Tolerations, to.SchedulingGates = from.NodeSelector, from.Tolerations, from.SchedulingGates
	}
	return apivalidation.ValidateImmutableField(*t, *old, path)
}

func validateStatus(next, prev *job) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := podspec.NonNegative(path, map[string]int32{
		"active": s.Active, "succeeded": s.Succeeded, "failed": s.Failed,
		"ready": ptr.Deref(s.Ready, 0), "terminating": ptr.Deref(s.Terminating, 0),
	})
	is := func(o *job, t batchv1.JobConditionType) bool {
		for _, c := range o.Status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	}
	if is(next, batchv1.JobComplete) && is(next, batchv1.JobFailed) {
		errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions"))
	}
	for _, t := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed, batchv1.JobFailureTarget} {
		if prev != nil && is(prev, t) && !is(next, t) {
			errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	if s.CompletionTime != nil && !is(next, batchv1.JobComplete) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
	}
	if s.CompletionTime == nil && is(next, batchv1.JobComplete) {
		errs = append(errs, field.Required(path.Child("completionTime"), "completionTime is required for Complete jobs"))
	}
	return errs
}

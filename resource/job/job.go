// Package job defines the Job.
//
// Job: what the API server knows of jobs.
//
// Not its job: the specification as such (semantics/jobspec, podspec), making
// pods (controller).
//
// Invariants: a job that does not choose its selector gets one that no other
// job's pods match.
package job

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

type job = batchv1.Job

// Kind is the Job.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[job]{
		Group: "batch", Version: "v1", Kind: "Job", Plural: "jobs", Categories: []string{"all"},
		Default: setDefaults,
		Prepare: func(_ *resource.Request, next, prev *job) {
			next.Status = batchv1.JobStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
				return
			}
			generateSelector(next)
		},
		Generation: func(j *job) any { return &j.Spec },
		Validate:   validate,
		Warnings:   warnings,
		Subs:       []resource.Sub[job]{resource.StatusSub(func(next, prev *job) { next.Spec = *prev.Spec.DeepCopy() }, validateStatus)},
		Columns:    columns(),
		Selectable: map[string]func(*job) string{
			"status.successful": func(j *job) string { return strconv.Itoa(int(j.Status.Succeeded)) },
		},
		Unconditional: true,
		Orphans:       true,
		ResetFields:   []string{"status"},
	})
}

func fill[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func setDefaults(j *job) {
	s := &j.Spec
	podspec.DefaultTemplate(&s.Template)
	if s.Completions == nil && s.Parallelism == nil {
		s.Completions = ptr.To[int32](1)
	}
	fill(&s.Parallelism, 1)
	if s.BackoffLimitPerIndex != nil {
		fill(&s.BackoffLimit, math.MaxInt32)
	}
	fill(&s.BackoffLimit, 6)
	if s.Template.Labels != nil && len(j.Labels) == 0 {
		j.Labels = maps.Clone(s.Template.Labels)
	}
	fill(&s.CompletionMode, batchv1.NonIndexedCompletion)
	fill(&s.Suspend, false)
	fill(&s.ManualSelector, false)
	if s.PodFailurePolicy == nil {
		fill(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
		return
	}
	fill(&s.PodReplacementPolicy, batchv1.Failed) // such a policy judges pods that have ended
	for i := range s.PodFailurePolicy.Rules {
		for k := range s.PodFailurePolicy.Rules[i].OnPodConditions {
			if c := &s.PodFailurePolicy.Rules[i].OnPodConditions[k]; c.Status == "" {
				c.Status = corev1.ConditionTrue
			}
		}
	}
}

// The labels a job's pods get, each also by the name it once had.
const (
	oldUIDLabel  = "controller-uid"
	oldNameLabel = "job-name"
)

// generateSelector makes the job select its own pods by its identity.
func generateSelector(j *job) {
	s := &j.Spec
	if ptr.Deref(s.ManualSelector, false) {
		return
	}
	labels := maps.Clone(s.Template.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for k, v := range map[string]string{
		oldNameLabel: j.Name, batchv1.JobNameLabel: j.Name,
		oldUIDLabel: string(j.UID), batchv1.ControllerUidLabel: string(j.UID),
	} {
		if _, ok := labels[k]; !ok {
			labels[k] = v
		}
	}
	s.Template.Labels = labels
	if s.Selector == nil {
		s.Selector = &metav1.LabelSelector{}
	}
	if s.Selector.MatchLabels == nil {
		s.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := s.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		s.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
}

func warnings(next, prev *job) []string {
	if prev != nil && prev.Generation == next.Generation {
		return nil
	}
	out := podspec.TemplateWarnings(&next.Spec.Template, field.NewPath("spec", "template"))
	const many, wide = 100000, 10000
	if c, p := ptr.Deref(next.Spec.Completions, 0), ptr.Deref(next.Spec.Parallelism, 0); ptr.Deref(next.Spec.CompletionMode, "") == batchv1.IndexedCompletion && c > many && p > wide {
		out = append(out, "spec.completions: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail")
	}
	return out
}

func columns() []resource.Column[job] {
	cell := resource.Cell[job]
	out := []resource.Column[job]{
		resource.NameColumn[job](),
		{Name: "Status", Description: "Status of the job.", Cell: cell(func(j *job) any { return state(j) })},
		{Name: "Completions", Description: resource.Doc(batchv1.JobStatus{}, "succeeded"), Cell: cell(completions)},
		{Name: "Duration", Description: "Time required to complete the job.", Cell: took},
		resource.AgeColumn[job](),
	}
	out = append(out, resource.TemplateColumns(func(j *job) *corev1.PodTemplateSpec { return &j.Spec.Template })...)
	return append(out, resource.Column[job]{
		Name: "Selector", Wide: true, Description: resource.Doc(batchv1.JobSpec{}, "selector"),
		Cell: cell(func(j *job) any { return resource.SelectorCell(j.Spec.Selector) }),
	})
}

func state(j *job) string {
	has := func(t batchv1.JobConditionType) bool {
		for _, c := range j.Status.Conditions {
			if c.Type == t {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	switch {
	case has(batchv1.JobComplete):
		return "Complete"
	case has(batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case has(batchv1.JobSuspended):
		return "Suspended"
	case has(batchv1.JobFailureTarget):
		return "FailureTarget"
	case has(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func completions(j *job) any {
	if j.Spec.Completions != nil {
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	}
	if p := ptr.Deref(j.Spec.Parallelism, 0); p > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, p)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func took(j *job, now time.Time) any {
	switch s := &j.Status; {
	case s.StartTime == nil:
		return ""
	case s.CompletionTime == nil:
		return duration.HumanDuration(now.Sub(s.StartTime.Time))
	default:
		return duration.HumanDuration(s.CompletionTime.Sub(s.StartTime.Time))
	}
}

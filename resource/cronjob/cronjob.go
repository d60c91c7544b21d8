// Package cronjob defines the CronJob.
//
// Job: what the API server knows of jobs by the clock, and their retired version.
//
// Not its job: the job's specification (semantics/jobspec, podspec), the
// meaning of schedules (semantics/cron).
//
// Invariants: what is stored has a schedule that parses.
package cronjob

import (
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	batchv1beta1 "k8s.io/api/batch/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/cron"
	"github.com/sampan-dev/sampan/semantics/jobspec"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

type job = batchv1.CronJob

// Kind is the CronJob.
func Kind() resource.Kind {
	gvk := func(version string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: "batch", Version: version, Kind: "CronJob"}
	}
	beta := resource.SameShape[batchv1beta1.CronJob, job](gvk("v1beta1"), gvk("v1"))
	beta.Orphans = true
	return resource.Erase(&resource.Def[job]{
		Group: "batch", Version: "v1", Kind: "CronJob", Plural: "cronjobs",
		Short: []string{"cj"}, Categories: []string{"all"},
		Default: setDefaults,
		Prepare: func(_ *resource.Request, next, prev *job) {
			next.Status = batchv1.CronJobStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(j *job) any { return &j.Spec },
		Name:       validateName,
		Validate:   validate,
		Warnings:   warnings,
		Subs: []resource.Sub[job]{resource.StatusSub(func(next, prev *job) { next.Spec = *prev.Spec.DeepCopy() },
			func(_, _ *job) field.ErrorList { return nil })},
		Columns:       columns(),
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also:          []resource.Version{beta},
	})
}

func fill[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func setDefaults(j *job) {
	s := &j.Spec
	podspec.DefaultTemplate(&s.JobTemplate.Spec.Template)
	if s.ConcurrencyPolicy == "" {
		s.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	fill(&s.Suspend, false)
	fill(&s.SuccessfulJobsHistoryLimit, 3)
	fill(&s.FailedJobsHistoryLimit, 1)
}

// suffix is what the controller appends to name a job: "-" and ten digits.
const suffix = 11

func validateName(name string, prefix bool) []string {
	out := apivalidation.NameIsDNSSubdomain(name, prefix)
	if !prefix && len(name) > validation.DNS1035LabelMaxLength-suffix {
		out = append(out, "must be no more than 52 characters")
	}
	return out
}

func validate(next, prev *job) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := validateSchedule(s, prev, path)
	if d := s.StartingDeadlineSeconds; d != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(*d, path.Child("startingDeadlineSeconds"))...)
	}
	switch p := s.ConcurrencyPolicy; p {
	case batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent:
	case "":
		errs = append(errs, field.Required(path.Child("concurrencyPolicy"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("concurrencyPolicy"), p, []batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}))
	}
	errs = append(errs, podspec.NonNegative(path, map[string]int32{
		"successfulJobsHistoryLimit": ptr.Deref(s.SuccessfulJobsHistoryLimit, 0),
		"failedJobsHistoryLimit":     ptr.Deref(s.FailedJobsHistoryLimit, 0),
	})...)
	t, at := &s.JobTemplate.Spec, path.Child("jobTemplate", "spec")
	errs = append(errs, jobspec.Validate(t, at)...)
	errs = append(errs, podspec.ValidateTemplate(&t.Template, at.Child("template"))...)
	if t.Selector != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), t.Selector, "`selector` will be auto-generated"))
	}
	if m := t.ManualSelector; m != nil && *m {
		errs = append(errs, field.NotSupported(at.Child("manualSelector"), m, []string{"nil", "false"}))
	}
	return errs
}

func validateSchedule(s *batchv1.CronJobSpec, prev *job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("schedule")
	switch zoned := strings.Contains(s.Schedule, "TZ"); {
	case s.Schedule == "":
		errs = append(errs, field.Required(at, ""))
	case zoned && s.TimeZone != nil:
		errs = append(errs, field.Invalid(at, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	case zoned && (prev == nil || prev.Spec.Schedule != s.Schedule):
		errs = append(errs, field.Invalid(at, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	case !zoned:
		if _, err := cron.Parse(s.Schedule); err != nil {
			errs = append(errs, field.Invalid(at, s.Schedule, err.Error()))
		}
	}
	if z := s.TimeZone; z != nil {
		errs = append(errs, validateZone(*z, path.Child("timeZone"))...)
	}
	return errs
}

func validateZone(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Invalid(path, name, "timeZone must be nil or non-empty string")}
	}
	if strings.EqualFold(name, "Local") {
		return field.ErrorList{field.Invalid(path, name, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(name); err != nil {
		return field.ErrorList{field.Invalid(path, name, err.Error())}
	}
	return nil
}

func warnings(next, prev *job) []string {
	var out []string
	if m := validation.IsDNS1123Label(next.Name); prev == nil && next.Name != "" && len(m) > 0 {
		out = append(out, "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: ["+strings.Join(m, " ")+"]")
	}
	if prev == nil || prev.Generation != next.Generation {
		out = append(out, podspec.TemplateWarnings(&next.Spec.JobTemplate.Spec.Template, field.NewPath("spec", "jobTemplate", "spec", "template"))...)
	}
	if strings.Contains(next.Spec.Schedule, "TZ") {
		out = append(out, "spec.schedule: CRON_TZ or TZ used in schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return out
}

func columns() []resource.Column[job] {
	cell := resource.Cell[job]
	out := []resource.Column[job]{
		resource.NameColumn[job](),
		{Name: "Schedule", Description: resource.Doc(batchv1.CronJobSpec{}, "schedule"), Cell: cell(func(j *job) any { return j.Spec.Schedule })},
		{Name: "Timezone", Description: resource.Doc(batchv1.CronJobSpec{}, "timeZone"), Cell: cell(func(j *job) any { return ptr.Deref(j.Spec.TimeZone, "<none>") })},
		{Name: "Suspend", Type: "boolean", Description: resource.Doc(batchv1.CronJobSpec{}, "suspend"), Cell: cell(func(j *job) any { return boolean(j.Spec.Suspend) })},
		{Name: "Active", Type: "integer", Description: resource.Doc(batchv1.CronJobStatus{}, "active"), Cell: cell(func(j *job) any { return int64(len(j.Status.Active)) })},
		{Name: "Last Schedule", Description: resource.Doc(batchv1.CronJobStatus{}, "lastScheduleTime"), Cell: func(j *job, now time.Time) any {
			if j.Status.LastScheduleTime == nil {
				return "<none>"
			}
			return resource.Since(*j.Status.LastScheduleTime, now)
		}},
		resource.AgeColumn[job](),
	}
	out = append(out, resource.TemplateColumns(func(j *job) *corev1.PodTemplateSpec { return &j.Spec.JobTemplate.Spec.Template })...)
	return append(out, resource.Column[job]{
		Name: "Selector", Wide: true, Description: resource.Doc(batchv1.JobSpec{}, "selector"),
		Cell: cell(func(j *job) any { return resource.SelectorCell(j.Spec.JobTemplate.Spec.Selector) }),
	})
}

func boolean(b *bool) string {
	switch {
	case b == nil:
		return "<unset>"
	case *b:
		return "True"
	}
	return "False"
}

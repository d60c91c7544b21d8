package cronjob

import (
	"cmp"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	kind    = batchv1.SchemeGroupVersion.WithKind("CronJob")
	jobKind = batchv1.SchemeGroupVersion.WithKind("Job")
)

// event is something to tell.
type event struct {
	kind, reason, format string
	args                 []any
}

func normal(reason, format string, args ...any) event {
	return event{corev1.EventTypeNormal, reason, format, args}
}

func warning(reason, format string, args ...any) event {
	return event{corev1.EventTypeWarning, reason, format, args}
}

// end is a Job's final condition, "" while it runs.
func end(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

func listed(s *batchv1.CronJobStatus, uid types.UID) bool {
	return slices.ContainsFunc(s.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

func unlist(s *batchv1.CronJobStatus, uid types.UID) {
	s.Active = slices.DeleteFunc(s.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

// observe takes what the CronJob's Jobs have come to into its status. missing
// are running ones it lists that are not among jobs.
func observe(s *batchv1.CronJobStatus, jobs []*batchv1.Job) (tell []event, missing []corev1.ObjectReference) {
	children := map[types.UID]bool{}
	for _, j := range jobs {
		children[j.UID] = true
		found, how := listed(s, j.UID), end(j)
		switch {
		case !found && how == "":
			tell = append(tell, warning("UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name))
		case found && how != "":
			unlist(s, j.UID)
			tell = append(tell, normal("SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, how))
		}
		if at := j.Status.CompletionTime; how == batchv1.JobComplete && at != nil && (s.LastSuccessfulTime == nil || at.After(s.LastSuccessfulTime.Time)) {
			s.LastSuccessfulTime = at.DeepCopy()
		}
	}
	for _, r := range s.Active {
		if !children[r.UID] {
			missing = append(missing, r)
		}
	}
	return tell, missing
}

// start is what a moment asks for.
type start struct {
	at    time.Time // start a Job for this moment; zero starts none
	clear bool      // the running ones make place first
	tell  []event
}

// decide says whether a Job is to be started now.
func decide(cj *batchv1.CronJob, t timetable, now time.Time) start {
	m, err := stand(cj, t, now, true)
	if err != nil {
		return start{tell: []event{warning("InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err)}}
	}
	if m.latest.IsZero() {
		return start{}
	}
	var tell []event
	if m.missed > manyMissed && cj.Spec.StartingDeadlineSeconds == nil {
		tell = append(tell, warning("TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"))
	}
	name := nameAt(cj, m.latest)
	switch {
	case tooLate(cj, m.latest, now):
		return start{tell: append(tell, warning("MissSchedule", "Missed scheduled time to start a job: %s", m.latest.UTC().Format(time.RFC1123Z)))}
	case slices.ContainsFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.Name == name }),
		cj.Status.LastScheduleTime != nil && cj.Status.LastScheduleTime.Time.Equal(m.latest):
		return start{tell: tell} // done
	case cj.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(cj.Status.Active) > 0:
		return start{tell: append(tell, normal("JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid"))}
	}
	return start{at: m.latest, clear: cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent, tell: tell}
}

// jobFor makes the Job of a moment.
func jobFor(cj *batchv1.CronJob, t timetable, at time.Time) *batchv1.Job {
	template := cj.Spec.JobTemplate.DeepCopy()
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: nameAt(cj, at), Namespace: cj.Namespace, Labels: template.Labels, Annotations: template.Annotations,
			CreationTimestamp: metav1.NewTime(at), OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kind)},
		},
		Spec: template.Spec,
	}
	if j.Annotations == nil {
		j.Annotations = map[string]string{}
	}
	if t.zone != nil {
		at = at.In(t.zone)
	}
	j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.Format(time.RFC3339)
	return j
}

// surplus are finished Jobs beyond the history limits, the oldest.
func surplus(cj *batchv1.CronJob, jobs []*batchv1.Job) []*batchv1.Job {
	by := map[batchv1.JobConditionType][]*batchv1.Job{}
	for _, j := range jobs {
		if how := end(j); how != "" {
			by[how] = append(by[how], j)
		}
	}
	var out []*batchv1.Job
	for how, limit := range map[batchv1.JobConditionType]*int32{batchv1.JobComplete: cj.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: cj.Spec.FailedJobsHistoryLimit} {
		done := by[how]
		if limit == nil || len(done) <= int(*limit) {
			continue
		}
		slices.SortFunc(done, func(a, b *batchv1.Job) int {
			return cmp.Or(byStart(a.Status.StartTime, b.Status.StartTime), cmp.Compare(a.Name, b.Name))
		})
		out = append(out, done[:len(done)-int(*limit)]...)
	}
	return out
}

// byStart orders those that never started last.
func byStart(a, b *metav1.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return a.Time.Compare(b.Time)
}

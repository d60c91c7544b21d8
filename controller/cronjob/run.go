package cronjob

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

type loop struct {
	*controller.Loop
	crons *client.Mirror[batchv1.CronJob]
	jobs  *client.Mirror[batchv1.Job]
	skew  prometheus.Observer
}

// New returns the cronjob loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{skew: d.Metrics.Histogram(prometheus.HistogramOpts{
		Name: "cronjob_controller_job_creation_skew_duration_seconds", Help: "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
		Buckets: prometheus.ExponentialBuckets(1, 2, 10)})}
	l.Loop = controller.NewLoop(d, "cronjob", 5, l.reconcile)
	l.crons = controller.Input(l.Loop, controller.Self[batchv1.CronJob])
	l.jobs = controller.Input(l.Loop, func(old, new *batchv1.Job) []controller.Key {
		var keys []controller.Key
		for _, j := range []*batchv1.Job{old, new} {
			if j != nil {
				keys = append(keys, controller.OwnerKeys(j, kind)...)
			}
		}
		return keys
	})
	controller.IndexByOwner(l.jobs)
	return l
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	now, ok := l.crons.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	cj := now.DeepCopy()
	jobs := l.jobs.By(controller.ByOwner, string(cj.UID))
	failure := l.pass(ctx, cj, jobs)
	if err := l.forget(ctx, cj, jobs); failure == nil {
		failure = err
	}
	if !equality.Semantic.DeepEqual(now.Status, cj.Status) {
		wrote, err := client.Of[batchv1.CronJob](l.Client, k.Namespace).UpdateStatus(ctx, cj)
		if err := controller.Ignore(err, apierrors.IsNotFound); err != nil {
			return fmt.Errorf("unable to update status for %s: %w", k, err)
		}
		controller.Wrote(&l.Unseen, k, l.crons, wrote)
	}
	return failure
}

func (l *loop) tell(cj *batchv1.CronJob, events ...event) {
	for _, e := range events {
		l.Events.Event(cj, e.kind, e.reason, e.format, e.args...)
	}
}

// pass does one round on a copy of the CronJob, whose status it changes.
func (l *loop) pass(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) error {
	events, missing := observe(&cj.Status, jobs)
	l.tell(cj, events...)
	for _, r := range missing {
		_, err := client.Of[batchv1.Job](l.Client, r.Namespace).Get(ctx, r.Name)
		switch {
		case apierrors.IsNotFound(err):
			l.tell(cj, normal("MissingJob", "Active job went missing: %v", r.Name))
			unlist(&cj.Status, r.UID)
		case err != nil:
			return err
		}
	}
	if cj.DeletionTimestamp != nil {
		return nil
	}
	t, zoned, err := read(&cj.Spec)
	if zoned {
		l.tell(cj, warning("UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", cj.Spec.Schedule))
	}
	switch {
	case err != nil && cj.Spec.TimeZone != nil && t.zone == nil:
		l.tell(cj, warning("UnknownTimeZone", "invalid timeZone: %q: %s", *cj.Spec.TimeZone, err))
		return nil // a change of the CronJob brings it back
	case suspended(cj):
		return nil
	case err != nil:
		l.tell(cj, warning("UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err))
		return nil
	}
	at := clock.Now()
	s := decide(cj, t, at)
	l.tell(cj, s.tell...)
	if !s.at.IsZero() {
		if err := l.start(ctx, cj, t, s); err != nil {
			return err
		}
	}
	if wait, ok := until(cj, t, at); ok {
		l.After(client.KeyOf(cj), wait)
	}
	return nil
}

// start creates the Job of a moment.
func (l *loop) start(ctx context.Context, cj *batchv1.CronJob, t timetable, s start) error {
	jobs := client.Of[batchv1.Job](l.Client, cj.Namespace)
	if s.clear {
		for _, r := range append([]corev1.ObjectReference(nil), cj.Status.Active...) {
			j, err := jobs.Get(ctx, r.Name)
			if err != nil {
				l.tell(cj, warning("FailedGet", "Get job: %v", err))
				return err
			}
			if err := l.remove(ctx, cj, j); err != nil {
				return fmt.Errorf("could not replace job %s/%s: %w", j.Namespace, j.Name, err)
			}
		}
	}
	made, err := jobs.Create(ctx, jobFor(cj, t, s.at))
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case apierrors.IsAlreadyExists(err):
		if made, err = jobs.Get(ctx, nameAt(cj, s.at)); err != nil {
			return err
		}
		if !metav1.IsControlledBy(made, cj) || listed(&cj.Status, made.UID) {
			return nil
		}
	case err != nil:
		l.tell(cj, warning("FailedCreate", "Error creating job: %v", err))
		return err
	default:
		l.skew.Observe(made.CreationTimestamp.Sub(s.at).Seconds())
		l.tell(cj, normal("SuccessfulCreate", "Created job %v", made.Name))
	}
	controller.Wrote(&l.Unseen, client.KeyOf(cj), l.jobs, made)
	cj.Status.Active = append(cj.Status.Active, corev1.ObjectReference{
		Kind: jobKind.Kind, APIVersion: jobKind.GroupVersion().String(), Namespace: made.Namespace, Name: made.Name, UID: made.UID, ResourceVersion: made.ResourceVersion})
	at := metav1.NewTime(s.at.Truncate(time.Second))
	cj.Status.LastScheduleTime = &at
	return nil
}

// remove deletes a Job, its pods behind it.
func (l *loop) remove(ctx context.Context, cj *batchv1.CronJob, j *batchv1.Job) error {
	background := metav1.DeletePropagationBackground
	err := client.Of[batchv1.Job](l.Client, j.Namespace).Delete(ctx, j.Name, &metav1.DeleteOptions{PropagationPolicy: &background})
	if err := controller.Ignore(err, apierrors.IsNotFound); err != nil {
		l.tell(cj, warning("FailedDelete", "Deleted job: %v", err))
		return err
	}
	controller.Removed(&l.Unseen, client.KeyOf(cj), l.jobs, j)
	unlist(&cj.Status, j.UID)
	l.tell(cj, normal("SuccessfulDelete", "Deleted job %v", j.Name))
	return nil
}

// forget deletes finished Jobs beyond the history limits.
func (l *loop) forget(ctx context.Context, cj *batchv1.CronJob, jobs []*batchv1.Job) error {
	var first error
	for _, j := range surplus(cj, jobs) {
		if j.DeletionTimestamp != nil {
			continue
		}
		if err := l.remove(ctx, cj, j); err != nil && first == nil {
			first = err
		}
	}
	return first
}

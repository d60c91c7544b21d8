package job

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// byJob files pods that are held for a Job under the Job's name.
const byJob = "job"

type loop struct {
	*controller.Loop
	jobs *client.Mirror[batchv1.Job]
	pods *client.Mirror[corev1.Pod]

	mu       sync.Mutex
	failures map[types.UID]streak
	figures
}

// streak is a Job's failures since its last success.
type streak struct {
	n    int
	last time.Time
}

// New returns the job loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{failures: map[types.UID]streak{}, figures: newFigures(d.Metrics)}
	l.Loop = controller.NewLoop(d, "job", 5, l.reconcile)
	l.jobs = controller.Input(l.Loop, controller.Self[batchv1.Job])
	l.pods = controller.Input(l.Loop, l.ofPod)
	controller.IndexByOwner(l.pods)
	l.pods.Index(byJob, func(p *corev1.Pod) []string {
		if !tracked(p) {
			return nil
		}
		var out []string
		for _, k := range controller.OwnerKeys(p, kind) {
			out = append(out, k.String())
		}
		return out
	})
	return l
}

func (l *loop) ofPod(old, new *corev1.Pod) []controller.Key {
	return controller.Concerned(controller.Family[batchv1.Job]{Kind: kind, Owners: l.jobs, Selector: func(o *batchv1.Job) *metav1.LabelSelector { return o.Spec.Selector }}, old, new)
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	j, ok := l.jobs.Get(k.Namespace, k.Name)
	if !ok {
		return l.letGo(ctx, l.pods.By(byJob, k.String()))
	}
	if m := j.Spec.ManagedBy; m != nil && *m != batchv1.JobControllerName {
		l.foreign.WithLabelValues(*m).Inc()
		return nil
	}
	if err := l.letGo(ctx, l.strangers(j)); err != nil {
		return err
	}
	if finished(j) {
		l.forget(j)
		return l.letGo(ctx, l.pods.By(byJob, k.String()))
	}
	pods, err := l.claim(ctx, j)
	if err != nil {
		return err
	}
	return l.pass(ctx, j, count(j, pods))
}

// strangers returns pods held for an earlier Job of the same name.
func (l *loop) strangers(j *batchv1.Job) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range l.pods.By(byJob, client.KeyOf(j).String()) {
		if !metav1.IsControlledBy(p, j) {
			out = append(out, p)
		}
	}
	return out
}

func (l *loop) claim(ctx context.Context, j *batchv1.Job) ([]*corev1.Pod, error) {
	sel, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil {
		return nil, err
	}
	k := client.KeyOf(j)
	c := controller.Claim[corev1.Pod]{
		Owner: j, Kind: kind, Selector: sel, Objects: client.Of[corev1.Pod](l.Client, j.Namespace),
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return client.Of[batchv1.Job](l.Client, j.Namespace).Get(ctx, j.Name)
		},
		Adopted: func(p *corev1.Pod) { controller.Wrote(&l.Unseen, k, l.pods, p) },
		// A pod without the finalizer could end unseen.
		Match: tracked,
	}
	return c.Sort(ctx, append(l.ownOf(j), l.pods.By(controller.ByOwner, controller.Orphans(j.Namespace))...))
}

// ownOf returns the Job's pods; those whose end was counted have lost the
// finalizer and no longer matter, unless they still run.
func (l *loop) ownOf(j *batchv1.Job) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range l.pods.By(controller.ByOwner, string(j.UID)) {
		if tracked(p) || !pod.Finished(p) {
			out = append(out, p)
		}
	}
	return out
}

// pass does one round: pods, then status, then finalizers.
func (l *loop) pass(ctx context.Context, j *batchv1.Job, t *tally) error {
	now := clock.Now()
	k := client.KeyOf(j)
	s := &t.status
	wait := l.streak(j, t, now)
	suspended := j.Spec.Suspend != nil && *j.Spec.Suspend
	if !suspended && s.StartTime == nil {
		at := metav1.NewTime(now)
		s.StartTime = &at
		if d := j.Spec.ActiveDeadlineSeconds; d != nil {
			l.After(k, time.Duration(*d)*time.Second)
		}
	}
	end, reason, message := target(j, t, now)
	if end != "" {
		setCondition(s, end, corev1.ConditionTrue, reason, message, now)
	} else {
		l.suspend(j, s, suspended, now)
	}
	p := decide(j, t, end != "" || suspended, now)
	var failure error
	delta := 0
	if j.DeletionTimestamp == nil {
		if perIndex(j) {
			wait = 0 // each index waits by itself
		}
		if p.wait > 0 {
			l.After(k, p.wait)
		}
		if p.create > 0 && wait > 0 {
			l.After(k, wait)
			p.create = 0
		}
		delta, failure = l.apply(ctx, j, t, p)
	}
	s.Active = int32(len(t.active) + delta)
	ready, ending := int32(0), int32(t.ending)
	for _, p := range t.active {
		if pod.Ready(p) {
			ready++
		}
	}
	s.Ready, s.Terminating = &ready, &ending
	l.close(j, t, end, reason, message, now)
	if d := deadline(j, now); d > 0 {
		l.After(k, d)
	}
	if err := l.report(ctx, j, s); err != nil {
		return err
	}
	for _, a := range t.actions {
		l.byPolicy.WithLabelValues(string(a)).Inc()
	}
	if err := l.letGo(ctx, t.release); err != nil {
		return err
	}
	return failure
}

// close writes the last condition once every pod has ended and is counted.
func (l *loop) close(j *batchv1.Job, t *tally, end batchv1.JobConditionType, reason, message string, now time.Time) {
	s := &t.status
	u := s.UncountedTerminatedPods
	if end == "" || s.Active > 0 || len(t.active) > 0 || t.ending > 0 || t.held > 0 || len(u.Failed)+len(u.Succeeded) > 0 {
		return
	}
	if end == batchv1.JobFailureTarget {
		setCondition(s, batchv1.JobFailed, corev1.ConditionTrue, reason, message, now)
		l.Events.Event(j, corev1.EventTypeWarning, reason, "%s", message)
		return
	}
	setCondition(s, batchv1.JobComplete, corev1.ConditionTrue, reason, message, now)
	at := metav1.NewTime(now)
	s.CompletionTime = &at
	l.Events.Event(j, corev1.EventTypeNormal, "Completed", "Job completed")
}

func (l *loop) suspend(j *batchv1.Job, s *batchv1.JobStatus, suspended bool, now time.Time) {
	switch {
	case suspended && setCondition(s, batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended", now):
		s.StartTime = nil
		l.Events.Event(j, corev1.EventTypeNormal, "Suspended", "Job suspended")
	case !suspended && holds(s.Conditions, batchv1.JobSuspended):
		setCondition(s, batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed", now)
		at := metav1.NewTime(now)
		s.StartTime = &at
		l.Events.Event(j, corev1.EventTypeNormal, "Resumed", "Job resumed")
	}
}

// streak notes new ends and returns how long to wait before the next pod.
func (l *loop) streak(j *batchv1.Job, t *tally, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.failures[j.UID]
	if t.succeeded {
		f = streak{}
	}
	for _, p := range t.failed {
		f.n++
		if at := endOf(p, now); at.After(f.last) {
			f.last = at
		}
	}
	if f.n == 0 {
		delete(l.failures, j.UID)
		return 0
	}
	l.failures[j.UID] = f
	return pause(f.n, f.last, now)
}

// endOf returns when a pod ended.
func endOf(p *corev1.Pod, now time.Time) time.Time {
	var last time.Time
	for _, cs := range p.Status.ContainerStatuses {
		if cs.State.Terminated != nil && cs.State.Terminated.FinishedAt.After(last) {
			last = cs.State.Terminated.FinishedAt.Time
		}
	}
	ready := pod.Condition(&p.Status, corev1.PodReady)
	switch {
	case !last.IsZero():
		return last
	case ready != nil && !ready.LastTransitionTime.IsZero():
		return ready.LastTransitionTime.Time
	case p.DeletionTimestamp != nil:
		return p.DeletionTimestamp.Time
	case !p.CreationTimestamp.IsZero():
		return p.CreationTimestamp.Time
	}
	return now
}

func (l *loop) forget(j *batchv1.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.failures, j.UID)
}

// apply creates or deletes pods and returns by how many more there are.
func (l *loop) apply(ctx context.Context, j *batchv1.Job, t *tally, p plan) (int, error) {
	k := client.KeyOf(j)
	pods := client.Of[corev1.Pod](l.Client, j.Namespace)
	if p.create > 0 {
		return controller.SlowStart(ctx, p.create, func(ctx context.Context, i int) error {
			next := controller.PodFor(&j.Spec.Template, j, kind)
			next.Finalizers = append(next.Finalizers, batchv1.JobTrackingFinalizer)
			if p.indexes != nil {
				index(next, j.Name, p.indexes[i])
				if perIndex(j) {
					succeed(j, next, t.retry[p.indexes[i]])
				}
			}
			made, err := pods.Create(ctx, next)
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			if err != nil {
				l.Events.Event(j, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
				return err
			}
			controller.Wrote(&l.Unseen, k, l.pods, made)
			l.Events.Event(j, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
			return nil
		})
	}
	n, err := controller.All(ctx, len(p.remove), func(ctx context.Context, i int) error {
		victim := p.remove[i]
		err := pods.Delete(ctx, victim.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			l.Events.Event(j, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
			return err
		}
		controller.Removed(&l.Unseen, k, l.pods, victim)
		l.Events.Event(j, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", victim.Name)
		return nil
	})
	return -n, err
}

func (l *loop) report(ctx context.Context, j *batchv1.Job, s *batchv1.JobStatus) error {
	if equality.Semantic.DeepEqual(*s, j.Status) {
		return nil
	}
	c := j.DeepCopy()
	c.Status = *s
	updated, err := client.Of[batchv1.Job](l.Client, j.Namespace).UpdateStatus(ctx, c)
	if err == nil {
		l.counted(j, s)
		controller.Wrote(&l.Unseen, client.KeyOf(j), l.jobs, updated)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

// letGo takes the finalizer off pods.
func (l *loop) letGo(ctx context.Context, pods []*corev1.Pod) error {
	_, err := controller.All(ctx, len(pods), func(ctx context.Context, i int) error {
		p := pods[i]
		if !tracked(p) {
			return nil
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer}}})
		if err != nil {
			return err
		}
		_, err = client.Of[corev1.Pod](l.Client, p.Namespace).Patch(ctx, p.Name, "", types.StrategicMergePatchType, patch)
		return controller.Ignore(err, apierrors.IsNotFound)
	})
	return err
}

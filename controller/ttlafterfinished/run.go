package ttlafterfinished

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

type loop struct {
	*controller.Loop
	jobs *client.Mirror[batchv1.Job]
}

// New returns the ttlafterfinished loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "ttl-after-finished", 5, l.reconcile)
	l.jobs = controller.Input(l.Loop, func(_, new *batchv1.Job) []controller.Key {
		if new == nil {
			return nil
		}
		if _, ok := expiry(new); !ok {
			return nil
		}
		return []controller.Key{client.KeyOf(new)}
	})
	return l
}

// expiry says when a job is to be deleted; ok is false when it is not, by time.
func expiry(j *batchv1.Job) (at time.Time, ok bool) {
	if j.DeletionTimestamp != nil || j.Spec.TTLSecondsAfterFinished == nil {
		return time.Time{}, false
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	j, ok := l.jobs.Get(k.Namespace, k.Name)
	if !ok || l.wait(k, j) {
		return nil
	}
	jobs := client.Of[batchv1.Job](l.Client, k.Namespace)
	j, err := jobs.Get(ctx, k.Name)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	if l.wait(k, j) {
		return nil
	}
	foreground := metav1.DeletePropagationForeground
	err = jobs.Delete(ctx, k.Name, &metav1.DeleteOptions{PropagationPolicy: &foreground, Preconditions: metav1.NewUIDPreconditions(string(j.UID))})
	return controller.Ignore(err, apierrors.IsNotFound)
}

// wait says whether the job's time has not come, and comes back when it has.
func (l *loop) wait(k controller.Key, j *batchv1.Job) bool {
	at, ok := expiry(j)
	if !ok {
		return true
	}
	if left := clock.Until(at); left > 0 {
		l.After(k, left)
		return true
	}
	return false
}

package deployment

import (
	"context"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

// ensureNew makes sure that the ReplicaSet of the present template exists.
func (r *rollout) ensureNew(ctx context.Context) error {
	if r.now != nil {
		return r.adoptNew(ctx)
	}
	revision := maxRevision(r.old) + 1
	rs := create(r.d)
	*rs.Spec.Replicas = newSize(r.d, append(r.all, rs), rs)
	annotate(r.d, rs, revision, false)
	made, err := client.Of[appsv1.ReplicaSet](r.Client, r.d.Namespace).Create(ctx, rs)
	if apierrors.IsAlreadyExists(err) {
		return r.collide(ctx, rs, err)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		message := fmt.Sprintf("Failed to create new replica set %q: %v", rs.Name, err)
		if hasDeadline(r.d) {
			set(&r.d.Status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonFailed, message, clock.Now()))
			if err := r.writeStatus(ctx, r.d); err != nil {
				r.Log.Debug("could not report", "err", err)
			}
		}
		r.Events.Event(r.d, corev1.EventTypeWarning, reasonFailed, "%s", message)
		return err
	}
	controller.Wrote(&r.Unseen, client.KeyOf(r.d), r.sets, made)
	if size(made) > 0 {
		r.Events.Event(r.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", made.Name, size(made))
	}
	r.now, r.all = made, append(r.all, made)
	return r.noteNew(ctx, reasonCreated, fmt.Sprintf("Created new replica set %q", made.Name), true)
}

// collide finds out whether a ReplicaSet of the name is ours, by a view that
// lags, or another's: then the next try takes another name.
func (r *rollout) collide(ctx context.Context, rs *appsv1.ReplicaSet, cause error) error {
	there, err := client.Of[appsv1.ReplicaSet](r.Client, r.d.Namespace).Get(ctx, rs.Name)
	if err != nil {
		return err
	}
	if metav1.IsControlledBy(there, r.d) && sameTemplate(&there.Spec.Template, &r.d.Spec.Template) {
		r.now, r.all = there, append(r.all, there)
		return r.adoptNew(ctx)
	}
	n := int32(1)
	if c := r.d.Status.CollisionCount; c != nil {
		n = *c + 1
	}
	r.d.Status.CollisionCount = &n
	if err := r.writeStatus(ctx, r.d); err != nil {
		return err
	}
	return cause
}

// adoptNew brings the annotations of an existing new ReplicaSet up to date.
func (r *rollout) adoptNew(ctx context.Context) error {
	if r.now == nil {
		return nil
	}
	c := r.now.DeepCopy()
	changed := annotate(r.d, c, maxRevision(r.old)+1, true)
	if c.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		c.Spec.MinReadySeconds, changed = r.d.Spec.MinReadySeconds, true
	}
	if changed {
		if err := r.writeSet(ctx, c); err != nil {
			return err
		}
	}
	return r.noteNew(ctx, reasonFound, fmt.Sprintf("Found new replica set %q", r.now.Name), false)
}

// noteNew tells in the Deployment which revision is the present one. With
// fresh, an earlier Progressing condition gives way.
func (r *rollout) noteNew(ctx context.Context, reason, message string, fresh bool) error {
	changed := false
	if v := r.now.Annotations[annRevision]; v != "" && r.d.Annotations[annRevision] != v {
		if r.d.Annotations == nil {
			r.d.Annotations = map[string]string{}
		}
		r.d.Annotations[annRevision], changed = v, true
	}
	if c := condition(&r.d.Status, appsv1.DeploymentProgressing); hasDeadline(r.d) && (fresh || c == nil) {
		set(&r.d.Status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reason, message, clock.Now()))
		changed = true
	}
	if !changed {
		return nil
	}
	return r.writeStatus(ctx, r.d)
}

// writeSet updates a ReplicaSet and puts the answer in place of the old view.
func (r *rollout) writeSet(ctx context.Context, rs *appsv1.ReplicaSet) error {
	updated, err := client.Of[appsv1.ReplicaSet](r.Client, rs.Namespace).Update(ctx, rs)
	if err != nil {
		return err
	}
	controller.Wrote(&r.Unseen, client.KeyOf(r.d), r.sets, updated)
	for _, list := range [][]*appsv1.ReplicaSet{r.all, r.old} {
		for i := range list {
			if list[i].UID == updated.UID {
				list[i] = updated
			}
		}
	}
	if r.now != nil && r.now.UID == updated.UID {
		r.now = updated
	}
	return nil
}

// resize gives rs another size, or only brings its size annotations up to
// date, and says whether the size changed.
func (r *rollout) resize(ctx context.Context, rs *appsv1.ReplicaSet, to int32) (bool, error) {
	if rs == nil {
		return false, nil
	}
	from := size(rs)
	c := rs.DeepCopy()
	if !annotateSize(r.d, c) && from == to {
		return false, nil
	}
	c.Spec.Replicas = &to
	if err := r.writeSet(ctx, c); err != nil {
		return false, err
	}
	if from == to {
		return false, nil
	}
	way := "down"
	if to > from {
		way = "up"
	}
	r.Events.Event(r.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", way, rs.Name, from, to)
	return true, nil
}

// report writes the status with how the rollout fares.
func (r *rollout) report(ctx context.Context) error {
	now := clock.Now()
	s := status(r.d, r.all, r.now, now)
	progress(r.d, &s, r.all, r.now, now)
	if statusEqual(&s, &r.d.Status) {
		if d, ok := stuckIn(r.d, &s, now); ok {
			r.After(client.KeyOf(r.d), d)
		}
		return nil
	}
	r.d.Status = s
	return r.writeStatus(ctx, r.d)
}

// reportCounts writes the status but leaves Progressing alone.
func (r *rollout) reportCounts(ctx context.Context) error {
	s := status(r.d, r.all, r.now, clock.Now())
	if statusEqual(&s, &r.d.Status) {
		return nil
	}
	r.d.Status = s
	return r.writeStatus(ctx, r.d)
}

// writeStatus writes d's status and revision annotation; d becomes the answer.
func (l *loop) writeStatus(ctx context.Context, d *appsv1.Deployment) error {
	updated, err := client.Of[appsv1.Deployment](l.Client, d.Namespace).UpdateStatus(ctx, d)
	if err != nil {
		return fmt.Errorf("status of deployment %s: %w", strconv.Quote(d.Name), err)
	}
	controller.Wrote(&l.Unseen, client.KeyOf(d), l.deployments, updated)
	updated.DeepCopyInto(d)
	return nil
}

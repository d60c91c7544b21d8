// Package deployment rolls out templates of pods.
//
// Job: make one ReplicaSet per template, move pods from old ones to the new one
// within the strategy's bounds, keep history, and report progress.
//
// Not its job: pods (replicaset).
//
// Invariants: availability never falls below what maxUnavailable allows by its
// doing; ReplicaSets that are not the Deployment's are never touched.
package deployment

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("Deployment")
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
)

type loop struct {
	*controller.Loop
	deployments *client.Mirror[appsv1.Deployment]
	sets        *client.Mirror[appsv1.ReplicaSet]
	pods        *client.Mirror[corev1.Pod]
}

// New returns the deployment loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "deployment", 5, l.reconcile)
	l.deployments = controller.Input(l.Loop, controller.Self[appsv1.Deployment])
	l.sets = controller.Input(l.Loop, l.ofSet)
	l.pods = controller.Input(l.Loop, l.ofPod)
	controller.IndexByOwner(l.sets)
	controller.IndexByOwner(l.pods)
	return l
}

func (l *loop) ofSet(old, new *appsv1.ReplicaSet) []controller.Key {
	return controller.Concerned(controller.Family[appsv1.Deployment]{Kind: kind, Owners: l.deployments, Selector: func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector }}, old, new)
}

// ofPod: a Recreate rollout goes on when the last old pod is gone.
func (l *loop) ofPod(old, new *corev1.Pod) []controller.Key {
	if new != nil || old == nil {
		return nil
	}
	for _, rs := range controller.OwnerKeys(old, setKind) {
		set, ok := l.sets.Get(rs.Namespace, rs.Name)
		if !ok {
			continue
		}
		for _, k := range controller.OwnerKeys(set, kind) {
			if d, ok := l.deployments.Get(k.Namespace, k.Name); ok && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
				return []controller.Key{k}
			}
		}
	}
	return nil
}

// rollout is one pass over one Deployment. d is the pass's own copy.
type rollout struct {
	*loop
	d   *appsv1.Deployment
	all []*appsv1.ReplicaSet // owned, as the mirror shows them
	now *appsv1.ReplicaSet   // of the present template, nil if there is none
	old []*appsv1.ReplicaSet
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	shared, ok := l.deployments.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	d := shared.DeepCopy()
	if reflect.DeepEqual(d.Spec.Selector, &metav1.LabelSelector{}) {
		l.Events.Event(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		if d.Status.ObservedGeneration < d.Generation {
			d.Status.ObservedGeneration = d.Generation
			return l.writeStatus(ctx, d)
		}
		return nil
	}
	r := &rollout{loop: l, d: d}
	if err := r.claim(ctx); err != nil {
		return err
	}
	r.split()
	if d.DeletionTimestamp != nil {
		return r.reportCounts(ctx)
	}
	if changed, err := r.notePause(ctx); changed || err != nil {
		return err // the written condition brings the key back
	}
	if d.Spec.Paused {
		return r.scale(ctx)
	}
	if to, ok := d.Annotations[annRollback]; ok {
		return r.rollback(ctx, to)
	}
	if scaling(d, r.all) {
		return r.scale(ctx)
	}
	switch d.Spec.Strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		return r.recreate(ctx)
	case appsv1.RollingUpdateDeploymentStrategyType:
		return r.roll(ctx)
	}
	return errors.New("unexpected deployment strategy type: " + string(d.Spec.Strategy.Type))
}

func (r *rollout) claim(ctx context.Context) error {
	sel, err := metav1.LabelSelectorAsSelector(r.d.Spec.Selector)
	if err != nil {
		return nil // validation lets no such selector in
	}
	sets := append(r.sets.By(controller.ByOwner, string(r.d.UID)), r.sets.By(controller.ByOwner, controller.Orphans(r.d.Namespace))...)
	c := controller.Claim[appsv1.ReplicaSet]{
		Owner: r.d, Kind: kind, Selector: sel, Objects: client.Of[appsv1.ReplicaSet](r.Client, r.d.Namespace),
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return client.Of[appsv1.Deployment](r.Client, r.d.Namespace).Get(ctx, r.d.Name)
		},
		Adopted: func(rs *appsv1.ReplicaSet) { controller.Wrote(&r.Unseen, client.KeyOf(r.d), r.sets, rs) },
	}
	r.all, err = c.Sort(ctx, sets)
	return err
}

func (r *rollout) split() {
	r.now = find(r.d, r.all)
	r.old = without(r.all, r.now)
}

// notePause keeps the deadline from running while the Deployment is paused.
func (r *rollout) notePause(ctx context.Context) (bool, error) {
	d := r.d
	if !hasDeadline(d) {
		return false, nil
	}
	c := condition(&d.Status, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonTimedOut {
		return false, nil
	}
	paused := c != nil && c.Reason == reasonPaused
	switch {
	case d.Spec.Paused && !paused:
		set(&d.Status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused", clock.Now()))
	case !d.Spec.Paused && paused:
		set(&d.Status, newCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed", clock.Now()))
	default:
		return false, nil
	}
	return true, r.writeStatus(ctx, d)
}

// roll does one step of a rolling update.
func (r *rollout) roll(ctx context.Context) error {
	if err := r.ensureNew(ctx); err != nil {
		return err
	}
	to := newSize(r.d, r.all, r.now)
	if size(r.now) > replicas(r.d) {
		to = replicas(r.d)
	}
	if changed, err := r.resize(ctx, r.now, to); changed || err != nil {
		return r.after(ctx, err)
	}
	changed := false
	for _, w := range shrinkOld(r.d, r.old, r.now) {
		did, err := r.resize(ctx, w.rs, w.to)
		if err != nil {
			return err
		}
		changed = changed || did
	}
	if changed {
		return r.report(ctx)
	}
	return r.finish(ctx)
}

// recreate ends all old pods before it makes new ones.
func (r *rollout) recreate(ctx context.Context) error {
	if err := r.adoptNew(ctx); err != nil {
		return err
	}
	changed := false
	for _, rs := range active(r.old) {
		did, err := r.resize(ctx, rs, 0)
		if err != nil {
			return err
		}
		changed = changed || did
	}
	if changed || r.oldPodsRun() {
		return r.report(ctx)
	}
	if err := r.ensureNew(ctx); err != nil {
		return err
	}
	if changed, err := r.resize(ctx, r.now, replicas(r.d)); changed || err != nil {
		return r.after(ctx, err)
	}
	return r.finish(ctx)
}

// oldPodsRun asks the old sets as well as the mirror of pods, which may lag behind them.
func (r *rollout) oldPodsRun() bool {
	for _, rs := range r.old {
		if rs.Status.Replicas > 0 {
			return true
		}
		for _, p := range r.pods.By(controller.ByOwner, string(rs.UID)) {
			if !pod.Finished(p) {
				return true
			}
		}
	}
	return false
}

func (r *rollout) after(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	return r.report(ctx)
}

// finish tidies up when the rollout is complete, and reports.
func (r *rollout) finish(ctx context.Context) error {
	if complete(r.d, &r.d.Status) {
		if err := r.tidy(ctx); err != nil {
			return err
		}
	}
	return r.report(ctx)
}

func (r *rollout) tidy(ctx context.Context) error {
	sets := client.Of[appsv1.ReplicaSet](r.Client, r.d.Namespace)
	for _, rs := range outdated(r.d, r.old) {
		if err := controller.Ignore(sets.Delete(ctx, rs.Name, nil), apierrors.IsNotFound); err != nil {
			return err
		}
		controller.Removed(&r.Unseen, client.KeyOf(r.d), r.sets, rs)
	}
	return nil
}

// scale brings the sets to a changed size of the Deployment, or of a paused one.
func (r *rollout) scale(ctx context.Context) error {
	if err := r.adoptNew(ctx); err != nil {
		return err
	}
	if err := r.scaleSets(ctx); err != nil {
		return err
	}
	if _, back := r.d.Annotations[annRollback]; r.d.Spec.Paused && !back {
		if err := r.tidy(ctx); err != nil {
			return err
		}
	}
	return r.reportCounts(ctx)
}

func (r *rollout) scaleSets(ctx context.Context) error {
	if one := theOne(r.now, r.old); one != nil {
		_, err := r.resize(ctx, one, replicas(r.d))
		return err
	}
	if saturated(r.d, r.now) {
		for _, rs := range active(r.old) {
			if _, err := r.resize(ctx, rs, 0); err != nil {
				return err
			}
		}
		return nil
	}
	if !rolling(r.d) {
		return nil
	}
	for _, w := range proportional(r.d, r.all) {
		if _, err := r.resize(ctx, w.rs, w.to); err != nil {
			return err
		}
	}
	return nil
}

// rollback does what an old client asked for by the deprecated annotation.
func (r *rollout) rollback(ctx context.Context, to string) error {
	if err := r.adoptNew(ctx); err != nil {
		return err
	}
	want, err := strconv.ParseInt(to, 10, 64)
	if err == nil && want == 0 {
		want = previous(r.all)
	}
	reason, message, level := "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.", corev1.EventTypeWarning
	if err == nil && want == 0 {
		message = "Unable to find last revision."
	}
	for _, rs := range r.all {
		if want == 0 || revisionOf(rs.Annotations) != want {
			continue
		}
		level = corev1.EventTypeNormal
		if sameTemplate(&r.d.Spec.Template, &rs.Spec.Template) {
			reason, message, level = "DeploymentRollbackTemplateUnchanged", "The rollback revision contains the same template as current deployment \""+r.d.Name+"\"", corev1.EventTypeWarning
			break
		}
		r.d.Spec.Template = *rs.Spec.Template.DeepCopy()
		delete(r.d.Spec.Template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
		for k := range r.d.Annotations {
			if _, kept := rs.Annotations[k]; !kept && k != corev1.LastAppliedConfigAnnotation && !strings.HasPrefix(k, "deployment.kubernetes.io/") {
				delete(r.d.Annotations, k)
			}
		}
		for k, v := range rs.Annotations {
			if !strings.HasPrefix(k, "deployment.kubernetes.io/") && k != corev1.LastAppliedConfigAnnotation {
				r.d.Annotations[k] = v
			}
		}
		reason, message = "DeploymentRollback", "Rolled back deployment \""+r.d.Name+"\" to revision "+strconv.FormatInt(want, 10)
		break
	}
	delete(r.d.Annotations, annRollback)
	updated, err := client.Of[appsv1.Deployment](r.Client, r.d.Namespace).Update(ctx, r.d)
	if err != nil {
		return err
	}
	controller.Wrote(&r.Unseen, client.KeyOf(r.d), r.deployments, updated)
	r.Events.Event(r.d, level, reason, "%s", message)
	return nil
}

// previous returns the second highest revision, 0 if there is none.
func previous(sets []*appsv1.ReplicaSet) int64 {
	var top, second int64
	for _, rs := range sets {
		switch v := revisionOf(rs.Annotations); {
		case v >= top:
			top, second = v, top
		case v > second:
			second = v
		}
	}
	return second
}

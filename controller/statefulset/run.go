package statefulset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

// hashLabel is on a StatefulSet's revisions; its pods carry a revision's name.
const hashLabel = "controller.kubernetes.io/hash"

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

type loop struct {
	*controller.Loop
	sets      *client.Mirror[appsv1.StatefulSet]
	pods      *client.Mirror[corev1.Pod]
	claims    *client.Mirror[corev1.PersistentVolumeClaim]
	revisions *client.Mirror[appsv1.ControllerRevision]
}

// New returns the statefulset loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "statefulset", 5, l.reconcile)
	l.sets = controller.Input(l.Loop, controller.Self[appsv1.StatefulSet])
	l.pods = controller.Input(l.Loop, l.ofPod)
	l.claims = controller.Input[corev1.PersistentVolumeClaim](l.Loop, nil)
	l.revisions = controller.Input[appsv1.ControllerRevision](l.Loop, nil)
	controller.IndexByOwner(l.pods)
	controller.IndexByOwner(l.revisions)
	return l
}

func (l *loop) ofPod(old, new *corev1.Pod) []controller.Key {
	return controller.Concerned(controller.Family[appsv1.StatefulSet]{Kind: kind, Owners: l.sets, Selector: func(o *appsv1.StatefulSet) *metav1.LabelSelector { return o.Spec.Selector }}, old, new)
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	set, ok := l.sets.Get(k.Namespace, k.Name)
	if !ok || set.DeletionTimestamp != nil {
		return nil
	}
	pods, err := l.claim(ctx, set)
	if err != nil {
		return err
	}
	history := &controller.History{Owner: set, Kind: kind, Template: &set.Spec.Template, Collisions: set.Status.CollisionCount, Limit: set.Spec.RevisionHistoryLimit, Label: hashLabel,
		Client: l.Client, Revisions: l.revisions, Unseen: &l.Unseen}
	update, others, err := history.Current(ctx)
	if apierrors.IsAlreadyExists(err) {
		return errors.Join(err, l.collided(ctx, set))
	}
	if err != nil {
		return err
	}
	current := update
	for _, r := range others {
		if r.Name == set.Status.CurrentRevision {
			current = r
		}
	}
	v := &view{set: set, current: current.Name, update: update.Name, pods: map[int]*corev1.Pod{}, now: clock.Now()}
	used := map[string]bool{current.Name: true}
	for _, p := range pods {
		used[p.Labels[controller.RevisionLabel]] = true
		if i := ordinalOf(set, p); i >= 0 {
			v.pods[i] = p
		}
	}
	failure := l.apply(ctx, v, map[string]*appsv1.ControllerRevision{v.current: current, v.update: update})
	if err := l.report(ctx, v, current.Name, update.Name); err != nil {
		return errors.Join(failure, err)
	}
	if failure == nil && set.Spec.MinReadySeconds > 0 {
		for _, p := range v.pods {
			if v.healthy(p) && !v.available(p) {
				l.After(k, time.Duration(set.Spec.MinReadySeconds)*time.Second)
				break
			}
		}
	}
	return errors.Join(failure, history.Forget(ctx, others, used))
}

func (l *loop) claim(ctx context.Context, set *appsv1.StatefulSet) ([]*corev1.Pod, error) {
	sel, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		return nil, err
	}
	k := client.KeyOf(set)
	c := controller.Claim[corev1.Pod]{
		Owner: set, Kind: kind, Selector: sel, Objects: client.Of[corev1.Pod](l.Client, set.Namespace),
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			return client.Of[appsv1.StatefulSet](l.Client, set.Namespace).Get(ctx, set.Name)
		},
		Match:   func(p *corev1.Pod) bool { return ordinalOf(set, p) >= 0 },
		Adopted: func(p *corev1.Pod) { controller.Wrote(&l.Unseen, k, l.pods, p) },
	}
	return c.Sort(ctx, append(l.pods.By(controller.ByOwner, string(set.UID)), l.pods.By(controller.ByOwner, controller.Orphans(set.Namespace))...))
}

func (l *loop) collided(ctx context.Context, set *appsv1.StatefulSet) error {
	c := set.DeepCopy()
	n := int32(1)
	if c.Status.CollisionCount != nil {
		n += *c.Status.CollisionCount
	}
	c.Status.CollisionCount = &n
	_, err := client.Of[appsv1.StatefulSet](l.Client, set.Namespace).UpdateStatus(ctx, c)
	return err
}

// apply does the next step.
func (l *loop) apply(ctx context.Context, v *view, revisions map[string]*appsv1.ControllerRevision) error {
	s := v.decide()
	for i, p := range v.pods {
		beyond := i < first(v.set) || i >= first(v.set)+replicas(v.set)
		if err := l.own(ctx, v.set, i, p, beyond); err != nil {
			return err
		}
	}
	for _, p := range s.mend {
		if err := l.mend(ctx, v.set, p); err != nil {
			return err
		}
	}
	_, err := controller.SlowStart(ctx, len(s.create), func(ctx context.Context, i int) error {
		name := v.revisionFor(s.create[i])
		return l.create(ctx, v.set, revisions[name], s.create[i])
	})
	if err != nil {
		return err
	}
	for _, p := range s.restart {
		l.Events.Event(v.set, corev1.EventTypeWarning, "RecreatingFailedPod", "StatefulSet %s/%s is recreating failed Pod %s", v.set.Namespace, v.set.Name, p.Name)
	}
	all := append(append(s.restart, s.remove...), s.replace...)
	_, err = controller.All(ctx, len(all), func(ctx context.Context, i int) error {
		p := all[i]
		err := client.Of[corev1.Pod](l.Client, p.Namespace).Delete(ctx, p.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		l.tell(v.set, "delete", "Delete", p.Name, err)
		if err == nil {
			controller.Removed(&l.Unseen, client.KeyOf(v.set), l.pods, p)
		}
		return err
	})
	return err
}

// mend gives a pod back the labels that make it what it is.
func (l *loop) mend(ctx context.Context, set *appsv1.StatefulSet, p *corev1.Pod) error {
	next := p.DeepCopy()
	identify(next, ordinalOf(set, p))
	wrote, err := client.Of[corev1.Pod](l.Client, p.Namespace).Update(ctx, next)
	if apierrors.IsNotFound(err) {
		return nil
	}
	l.tell(set, "update", "Update", p.Name, err)
	if err == nil {
		controller.Wrote(&l.Unseen, client.KeyOf(set), l.pods, wrote)
	}
	return err
}

func (l *loop) tell(set *appsv1.StatefulSet, verb, reason, pod string, err error) {
	if err != nil {
		l.Events.Event(set, corev1.EventTypeWarning, "Failed"+reason, "%s Pod %s in StatefulSet %s failed error: %s", verb, pod, set.Name, err)
		return
	}
	l.Events.Event(set, corev1.EventTypeNormal, "Successful"+reason, "%s Pod %s in StatefulSet %s successful", verb, pod, set.Name)
}

// create makes the claims of an ordinal, then its pod.
func (l *loop) create(ctx context.Context, set *appsv1.StatefulSet, r *appsv1.ControllerRevision, ordinal int) error {
	t, err := controller.TemplateOf(r)
	if err != nil {
		return err
	}
	p := podFor(set, t, r.Name, ordinal)
	for _, c := range claimsFor(set, ordinal) {
		if err := l.provide(ctx, set, p.Name, c.claim); err != nil {
			return err
		}
	}
	made, err := client.Of[corev1.Pod](l.Client, set.Namespace).Create(ctx, p)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	l.tell(set, "create", "Create", p.Name, err)
	if err != nil {
		return err
	}
	controller.Wrote(&l.Unseen, client.KeyOf(set), l.pods, made)
	return nil
}

// provide makes a claim unless it is there: claims outlive pods.
func (l *loop) provide(ctx context.Context, set *appsv1.StatefulSet, pod string, c *corev1.PersistentVolumeClaim) error {
	if now, ok := l.claims.Get(c.Namespace, c.Name); ok {
		if now.DeletionTimestamp != nil {
			return fmt.Errorf("pvc %s is being deleted", c.Name)
		}
		return nil
	}
	made, err := client.Of[corev1.PersistentVolumeClaim](l.Client, c.Namespace).Create(ctx, c)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		l.Events.Event(set, corev1.EventTypeWarning, "FailedCreate", "create Claim %s for Pod %s in StatefulSet %s failed error: %s", c.Name, pod, set.Name, err)
		return err
	}
	controller.Wrote(&l.Unseen, client.KeyOf(set), l.claims, made)
	l.Events.Event(set, corev1.EventTypeNormal, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", c.Name, pod, set.Name)
	return nil
}

// own makes the claims of an ordinal go when the policy says they should.
func (l *loop) own(ctx context.Context, set *appsv1.StatefulSet, ordinal int, p *corev1.Pod, condemned bool) error {
	for _, s := range claimsFor(set, ordinal) {
		c, ok := l.claims.Get(set.Namespace, s.claim.Name)
		if !ok {
			continue
		}
		want, differ := owners(set, c, p, condemned)
		if !differ {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": c.UID, "resourceVersion": c.ResourceVersion, "ownerReferences": want}})
		if err != nil {
			return err
		}
		wrote, err := client.Of[corev1.PersistentVolumeClaim](l.Client, c.Namespace).Patch(ctx, c.Name, "", types.MergePatchType, patch)
		if controller.Ignore(err, apierrors.IsNotFound) != nil {
			return err
		}
		controller.Wrote(&l.Unseen, client.KeyOf(set), l.claims, wrote)
	}
	return nil
}

func (l *loop) report(ctx context.Context, v *view, current, update string) error {
	s := v.status(current, update)
	if equality.Semantic.DeepEqual(s, v.set.Status) {
		return nil
	}
	c := v.set.DeepCopy()
	c.Status = s
	updated, err := client.Of[appsv1.StatefulSet](l.Client, c.Namespace).UpdateStatus(ctx, c)
	if err == nil {
		controller.Wrote(&l.Unseen, client.KeyOf(c), l.sets, updated)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

// Package replicaset keeps the number of pods of every ReplicaSet, and of every
// ReplicationController, its elder sister.
//
// Job: create and delete pods until there are as many as wished, adopt and
// release pods by their labels, and report the status.
//
// Not its job: which ReplicaSets there are (deployment), where pods run.
//
// Invariants: it never decides on a view that lacks its own writes, so it
// never makes a pod too many.
package replicaset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// loop keeps the sets of one form.
type loop[T any] struct {
	*controller.Loop
	form[T]
	sets *client.Mirror[T]
	pods *client.Mirror[corev1.Pod]
}

// New returns the replicaset loop.
func New(d controller.Deps) controller.Controller {
	return newLoop(d, "replicaset", replicaSets)
}

// NewReplication returns the loop of ReplicationControllers.
func NewReplication(d controller.Deps) controller.Controller {
	return newLoop(d, "replication", replicationControllers)
}

func newLoop[T any](d controller.Deps, name string, f form[T]) *loop[T] {
	l := &loop[T]{form: f}
	l.Loop = controller.NewLoop(d, name, 5, l.reconcile)
	l.sets = controller.Input(l.Loop, controller.Self[T])
	l.pods = controller.Input(l.Loop, l.ofPod)
	controller.IndexByOwner(l.sets)
	controller.IndexByOwner(l.pods)
	return l
}

// ofPod finds the ReplicaSets that a pod's change concerns: its old and new
// controllers, or those that may adopt it.
func (l *loop[T]) ofPod(old, new *corev1.Pod) []controller.Key {
	return controller.Concerned(controller.Family[T]{Kind: l.kind, Owners: l.sets, Selector: func(o *T) *metav1.LabelSelector { return l.view(o).Spec.Selector }}, old, new)
}

func (l *loop[T]) reconcile(ctx context.Context, k controller.Key) error {
	o, ok := l.sets.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	rs := l.read(o)
	sel, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		l.Log.Warn("invalid selector", "key", k.String(), "err", err)
		return nil
	}
	mine, terminating, err := l.claim(ctx, rs, sel)
	if err != nil {
		return err
	}
	wanted := 1
	if rs.Spec.Replicas != nil {
		wanted = int(*rs.Spec.Replicas)
	}
	var failure error
	if rs.DeletionTimestamp == nil {
		p := decide(wanted, mine, l.siblings(rs, len(mine) > wanted), clock.Now())
		failure = l.apply(ctx, rs, p)
	}
	next := status(rs.ReplicaSet, mine, terminating, failure, len(mine)-wanted, clock.Now())
	if err := l.tell(ctx, o, next); err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	if s := next; rs.Spec.MinReadySeconds > 0 && s.ReadyReplicas == int32(wanted) && s.AvailableReplicas != int32(wanted) {
		if d := nextAvailable(mine, time.Duration(rs.Spec.MinReadySeconds)*time.Second, clock.Now()); d > 0 {
			l.After(k, d)
		}
	}
	return nil
}

// claim returns the active pods that rs owns and how many more are ending.
func (l *loop[T]) claim(ctx context.Context, rs replicas, sel labels.Selector) ([]*corev1.Pod, int, error) {
	var active []*corev1.Pod
	terminating := 0
	for _, p := range append(l.pods.By(controller.ByOwner, string(rs.UID)), l.pods.By(controller.ByOwner, controller.Orphans(rs.Namespace))...) {
		if pod.Active(p) {
			active = append(active, p)
		} else if p.DeletionTimestamp != nil && !pod.Finished(p) && metav1.IsControlledBy(p, rs) {
			terminating++
		}
	}
	k := client.KeyOf(rs.ReplicaSet)
	c := controller.Claim[corev1.Pod]{
		Owner: rs.self, Kind: l.kind, Selector: sel, Objects: client.Of[corev1.Pod](l.Client, rs.Namespace),
		Fresh: func(ctx context.Context) (metav1.Object, error) {
			fresh, err := client.Of[T](l.Client, rs.Namespace).Get(ctx, rs.Name)
			if err != nil {
				return nil, err
			}
			return any(fresh).(metav1.Object), nil
		},
		Adopted: func(p *corev1.Pod) { controller.Wrote(&l.Unseen, k, l.pods, p) },
	}
	mine, err := c.Sort(ctx, active)
	return mine, terminating, err
}

// siblings counts the active pods per node of all ReplicaSets that rs's own
// controller has: scaling down first takes from where they crowd.
func (l *loop[T]) siblings(rs replicas, needed bool) map[string]int {
	count := map[string]int{}
	if !needed {
		return count
	}
	owners := []types.UID{rs.UID}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		owners = nil
		for _, o := range l.sets.By(controller.ByOwner, string(ref.UID)) {
			owners = append(owners, any(o).(metav1.Object).GetUID())
		}
	}
	for _, uid := range owners {
		for _, p := range l.pods.By(controller.ByOwner, string(uid)) {
			if pod.Active(p) {
				count[p.Spec.NodeName]++
			}
		}
	}
	return count
}

func (l *loop[T]) apply(ctx context.Context, rs replicas, p plan) error {
	k := client.KeyOf(rs.ReplicaSet)
	pods := client.Of[corev1.Pod](l.Client, rs.Namespace)
	if p.create > 0 {
		_, err := controller.SlowStart(ctx, p.create, func(ctx context.Context, _ int) error {
			made, err := pods.Create(ctx, controller.PodFor(&rs.Spec.Template, rs.self, l.kind))
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil // nothing can be made there any more, and nobody wants to hear of it
			}
			if err != nil {
				l.Events.Event(rs.self, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
				return err
			}
			controller.Wrote(&l.Unseen, k, l.pods, made)
			l.Events.Event(rs.self, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", made.Name)
			return nil
		})
		return err
	}
	_, err := controller.All(ctx, len(p.remove), func(ctx context.Context, i int) error {
		victim := p.remove[i]
		err := pods.Delete(ctx, victim.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			l.Events.Event(rs.self, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
			return fmt.Errorf("unable to delete pods: %w", err)
		}
		controller.Removed(&l.Unseen, k, l.pods, victim)
		l.Events.Event(rs.self, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", victim.Name)
		return nil
	})
	return err
}

// tell writes the status.
func (l *loop[T]) tell(ctx context.Context, o *T, next appsv1.ReplicaSetStatus) error {
	c := l.report(o, next)
	if c == o {
		return nil
	}
	k := client.KeyOf(o)
	updated, err := client.Of[T](l.Client, k.Namespace).UpdateStatus(ctx, c)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.sets, updated)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

// Package endpoints writes the Endpoints object of every service that has a
// selector, for clients that do not read EndpointSlices.
//
// Not its job: services without selector, whose Endpoints are their owners'.
package endpoints

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/endpoint"
)

type loop struct {
	*controller.Loop
	services  *client.Mirror[corev1.Service]
	pods      *client.Mirror[corev1.Pod]
	endpoints *client.Mirror[corev1.Endpoints]
}

// New returns the endpoints loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "endpoint", 5, l.reconcile)
	l.services = controller.Input(l.Loop, controller.Self[corev1.Service])
	l.pods = controller.Input(l.Loop, l.ofPod)
	l.endpoints = controller.Input(l.Loop, func(old, new *corev1.Endpoints) []controller.Key {
		if old == nil {
			return nil // at the start every service is looked at anyway
		}
		return controller.Self(old, new)
	})
	return l
}

func (l *loop) ofPod(old, new *corev1.Pod) []controller.Key {
	if old != nil && new != nil && !endpoint.Changed(old, new) {
		return nil
	}
	some := new
	if some == nil {
		some = old
	}
	var keys []controller.Key
	for _, s := range l.services.List(some.Namespace) {
		if new != nil && endpoint.Selects(s, new.Labels) || old != nil && endpoint.Selects(s, old.Labels) {
			keys = append(keys, client.KeyOf(s))
		}
	}
	return keys
}

const (
	managedBy     = "endpoints.kubernetes.io/managed-by"
	manager       = "endpoint-controller"
	overCapacity  = corev1.EndpointsOverCapacity
	triggerTime   = corev1.EndpointsLastChangeTriggerTime
	notAService   = corev1.IsHeadlessService
	perEndpoints  = 1000
	truncatedText = "truncated"
)

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	typed := client.Of[corev1.Endpoints](l.Client, k.Namespace)
	s, ok := l.services.Get(k.Namespace, k.Name)
	was, exists := l.endpoints.Get(k.Namespace, k.Name)
	if !ok {
		// Only what this loop made goes with the service.
		if exists && (was.Labels[managedBy] == manager || was.Annotations[triggerTime] != "") {
			return controller.Ignore(typed.Delete(ctx, k.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(was.UID))}), apierrors.IsNotFound, apierrors.IsConflict)
		}
		return nil
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName || len(s.Spec.Selector) == 0 {
		return nil
	}
	var chosen []*corev1.Pod
	for _, p := range l.pods.List(k.Namespace) {
		if endpoint.Selects(s, p.Labels) {
			chosen = append(chosen, p)
		}
	}
	subsets, over := subsetsOf(s, chosen)
	next := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: k.Name, Namespace: k.Namespace}}
	if exists {
		next = was.DeepCopy()
	}
	next.Subsets = endpoint.Repack(subsets) // as the server will store it: else every look would find a difference
	next.Labels = maps.Clone(s.Labels)
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	next.Labels[managedBy] = manager
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		next.Labels[notAService] = ""
	} else {
		delete(next.Labels, notAService)
	}
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	if over {
		next.Annotations[overCapacity] = truncatedText
	} else {
		delete(next.Annotations, overCapacity)
	}
	if exists && equality.Semantic.DeepEqual(was.Subsets, next.Subsets) && equality.Semantic.DeepEqual(was.Labels, next.Labels) && was.Annotations[overCapacity] == next.Annotations[overCapacity] {
		return nil
	}
	next.Annotations[triggerTime] = clock.Now().UTC().Format(time.RFC3339Nano)
	return l.write(ctx, typed, k, next, exists)
}

func (l *loop) write(ctx context.Context, typed client.Typed[corev1.Endpoints], k controller.Key, next *corev1.Endpoints, exists bool) error {
	var out *corev1.Endpoints
	var err error
	if exists {
		out, err = typed.Update(ctx, next)
	} else {
		out, err = typed.Create(ctx, next)
	}
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.endpoints, out)
		return nil
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if s, ok := l.services.Get(k.Namespace, k.Name); ok && !apierrors.IsConflict(err) {
		reason, verb := "FailedToUpdateEndpoint", "update"
		if !exists {
			reason, verb = "FailedToCreateEndpoint", "create"
		}
		l.Events.Event(s, corev1.EventTypeWarning, reason, "Failed to %s endpoint %s/%s: %v", verb, k.Namespace, k.Name, err)
	}
	return err
}

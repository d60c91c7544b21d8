// Package endpointslice writes the EndpointSlices of every service that has a
// selector.
//
// Not its job: slices that others manage, services without selector.
//
// Invariants: an endpoint that stays is not moved between slices.
package endpointslice

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/endpoint"
)

type loop struct {
	*controller.Loop
	services *client.Mirror[corev1.Service]
	pods     *client.Mirror[corev1.Pod]
	nodes    *client.Mirror[corev1.Node]
	slices   *client.Mirror[discoveryv1.EndpointSlice]
}

const byService = "service"

// New returns the endpointslice loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "endpointslice", 5, l.reconcile)
	l.services = controller.Input(l.Loop, controller.Self[corev1.Service])
	l.pods = controller.Input(l.Loop, l.ofPod)
	l.nodes = controller.Input(l.Loop, l.ofNode)
	l.slices = controller.Input(l.Loop, func(old, new *discoveryv1.EndpointSlice) []controller.Key {
		if old == nil {
			return serviceKeys(new) // settles what waits for it
		}
		return append(serviceKeys(old), serviceKeys(new)...)
	})
	l.slices.Index(byService, func(s *discoveryv1.EndpointSlice) []string {
		var out []string
		for _, k := range serviceKeys(s) {
			out = append(out, k.String())
		}
		return out
	})
	return l
}

func serviceKeys(s *discoveryv1.EndpointSlice) []controller.Key {
	if s == nil || s.Labels[discoveryv1.LabelManagedBy] != manager || s.Labels[discoveryv1.LabelServiceName] == "" {
		return nil
	}
	return []controller.Key{{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}}
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

// ofNode: slices tell the zones of their nodes.
func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	if old == nil || new == nil || old.Labels[corev1.LabelTopologyZone] == new.Labels[corev1.LabelTopologyZone] {
		return nil
	}
	var keys []controller.Key
	for _, s := range l.services.List("") {
		keys = append(keys, client.KeyOf(s))
	}
	return keys
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	s, ok := l.services.Get(k.Namespace, k.Name)
	if !ok || s.DeletionTimestamp != nil || s.Spec.Type == corev1.ServiceTypeExternalName || len(s.Spec.Selector) == 0 {
		return nil // the garbage collector removes the slices of services that are gone
	}
	var pods []*corev1.Pod
	for _, p := range l.pods.List(k.Namespace) {
		if endpoint.Selects(s, p.Labels) {
			pods = append(pods, p)
		}
	}
	have := l.slices.By(byService, k.String())
	p := decide(s, pods, l.node, have)
	if err := l.apply(ctx, k, p); err != nil {
		if !apierrors.IsConflict(err) {
			l.Events.Event(s, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service %s/%s: %v", k.Namespace, k.Name, err)
		}
		return err
	}
	return nil
}

func (l *loop) node(name string) (node, bool) {
	n, ok := l.nodes.Get("", name)
	if !ok {
		return node{}, false
	}
	return node{zone: n.Labels[corev1.LabelTopologyZone]}, true
}

// apply creates before it deletes, so that readers miss nothing.
func (l *loop) apply(ctx context.Context, k controller.Key, p plan) error {
	typed := client.Of[discoveryv1.EndpointSlice](l.Client, k.Namespace)
	stamp := func(s *discoveryv1.EndpointSlice) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[corev1.EndpointsLastChangeTriggerTime] = clock.Now().UTC().Format(time.RFC3339Nano)
	}
	for _, s := range p.create {
		stamp(s)
		out, err := typed.Create(ctx, s)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			return err
		}
		controller.Wrote(&l.Unseen, k, l.slices, out)
	}
	for _, s := range p.update {
		stamp(s)
		out, err := typed.Update(ctx, s)
		if err != nil {
			return err
		}
		controller.Wrote(&l.Unseen, k, l.slices, out)
	}
	for _, s := range p.remove {
		if err := controller.Ignore(typed.Delete(ctx, s.Name, nil), apierrors.IsNotFound); err != nil {
			return err
		}
		controller.Removed(&l.Unseen, k, l.slices, s)
	}
	return nil
}

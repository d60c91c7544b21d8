// Package disruption tells in every PodDisruptionBudget's status how many pods
// may be evicted, and takes back that a pod is to be disrupted when it was not.
//
// Not its job: evicting (the eviction subresource asks the status).
package disruption

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

type loop struct {
	*controller.Loop
	budgets     *client.Mirror[policyv1.PodDisruptionBudget]
	pods        *client.Mirror[corev1.Pod]
	sets        *client.Mirror[appsv1.ReplicaSet]
	deployments *client.Mirror[appsv1.Deployment]
	stateful    *client.Mirror[appsv1.StatefulSet]
	controllers *client.Mirror[corev1.ReplicationController]
	kinds       controller.Kinds
}

// New returns the disruption loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "disruption", 2, l.reconcile)
	l.budgets = controller.Input(l.Loop, controller.Self[policyv1.PodDisruptionBudget])
	l.pods = controller.Input(l.Loop, l.ofPod)
	l.sets = controller.Input[appsv1.ReplicaSet](l.Loop, nil)
	l.deployments = controller.Input(l.Loop, func(old, new *appsv1.Deployment) []controller.Key {
		return l.ofScaled(old != nil && new != nil && !equality.Semantic.DeepEqual(old.Spec.Replicas, new.Spec.Replicas), new)
	})
	l.stateful = controller.Input(l.Loop, func(old, new *appsv1.StatefulSet) []controller.Key {
		return l.ofScaled(old != nil && new != nil && !equality.Semantic.DeepEqual(old.Spec.Replicas, new.Spec.Replicas), new)
	})
	l.controllers = controller.Input[corev1.ReplicationController](l.Loop, nil)
	return l
}

// ofScaled: another size changes what a namespace's budgets expect.
func (l *loop) ofScaled(changed bool, o metav1.Object) []controller.Key {
	if !changed {
		return nil
	}
	var keys []controller.Key
	for _, b := range l.budgets.List(o.GetNamespace()) {
		keys = append(keys, client.KeyOf(b))
	}
	return keys
}

func (l *loop) ofPod(old, new *corev1.Pod) []controller.Key {
	if old != nil && new != nil && pod.Ready(old) == pod.Ready(new) && pod.Finished(old) == pod.Finished(new) &&
		(old.DeletionTimestamp == nil) == (new.DeletionTimestamp == nil) && equality.Semantic.DeepEqual(old.Labels, new.Labels) {
		return doomedKey(new)
	}
	some := new
	if some == nil {
		some = old
	}
	keys := doomedKey(new)
	for _, b := range l.budgets.List(some.Namespace) {
		if sel := selectorOf(b); new != nil && sel.Matches(labels.Set(new.Labels)) || old != nil && sel.Matches(labels.Set(old.Labels)) {
			keys = append(keys, client.KeyOf(b))
		}
	}
	return keys
}

func selectorOf(b *policyv1.PodDisruptionBudget) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	if name, ok := strings.CutPrefix(k.Name, ofPods); ok {
		return l.spared(ctx, k, name)
	}
	b, ok := l.budgets.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	sel := selectorOf(b)
	var pods []*corev1.Pod
	for _, p := range l.pods.List(k.Namespace) {
		if sel.Matches(labels.Set(p.Labels)) && !pod.Finished(p) {
			pods = append(pods, p)
		}
	}
	if len(pods) == 0 && len(b.Status.Conditions) == 0 {
		l.Events.Event(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	next, again := status(b, pods, func(p *corev1.Pod) (string, int32, bool) { return l.scale(ctx, p) }, clock.Now())
	if again > 0 {
		l.After(k, again)
	}
	if equality.Semantic.DeepEqual(next, b.Status) {
		return nil
	}
	c := b.DeepCopy()
	c.Status = next
	out, err := client.Of[policyv1.PodDisruptionBudget](l.Client, k.Namespace).UpdateStatus(ctx, c)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	controller.Wrote(&l.Unseen, k, l.budgets, out)
	return nil
}

// scale finds how many pods the controller of p means to have.
func (l *loop) scale(ctx context.Context, p *corev1.Pod) (string, int32, bool) {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return "", 0, false
	}
	switch ref.Kind {
	case "ReplicaSet":
		rs, ok := l.sets.Get(p.Namespace, ref.Name)
		if !ok || rs.UID != ref.UID {
			return "", 0, false
		}
		if up := metav1.GetControllerOfNoCopy(rs); up != nil && up.Kind == "Deployment" {
			if d, ok := l.deployments.Get(p.Namespace, up.Name); ok && d.UID == up.UID {
				return string(d.UID), count(d.Spec.Replicas), true
			}
		}
		return string(rs.UID), count(rs.Spec.Replicas), true
	case "StatefulSet":
		if s, ok := l.stateful.Get(p.Namespace, ref.Name); ok && s.UID == ref.UID {
			return string(s.UID), count(s.Spec.Replicas), true
		}
	case "ReplicationController":
		if rc, ok := l.controllers.Get(p.Namespace, ref.Name); ok && rc.UID == ref.UID {
			return string(rc.UID), count(rc.Spec.Replicas), true
		}
	default:
		return l.scaleOf(ctx, p.Namespace, ref)
	}
	return "", 0, false
}

// scaleOf asks a controller of any other kind for its scale.
func (l *loop) scaleOf(ctx context.Context, namespace string, ref *metav1.OwnerReference) (string, int32, bool) {
	r, err := l.kinds.Resource(ctx, l.Client, ref.APIVersion, ref.Kind)
	if err != nil {
		return "", 0, false
	}
	obj, err := l.Client.Get(ctx, r, namespace, ref.Name, "scale", nil)
	if err != nil {
		return "", 0, false
	}
	s, ok := obj.(*autoscalingv1.Scale)
	if !ok || s.UID != ref.UID {
		return "", 0, false
	}
	return string(s.UID), s.Spec.Replicas, true
}

func count(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

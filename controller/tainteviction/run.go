package tainteviction

import (
	"context"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

const byNode = "node"

type loop struct {
	*controller.Loop
	nodes *client.Mirror[corev1.Node]
	pods  *client.Mirror[corev1.Pod]

	mu    sync.Mutex
	since map[controller.Key]sighting
}

// sighting is when a pod was first seen under taints.
type sighting struct {
	uid types.UID
	at  time.Time
}

// New returns the tainteviction loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{since: map[controller.Key]sighting{}}
	l.Loop = controller.NewLoop(d, "taint-eviction", 8, l.reconcile).As(d, "node-controller")
	l.Events = client.Recorder(l.Client, "taint-eviction-controller", "")
	l.pods = controller.Input(l.Loop, ofPod)
	l.pods.Index(byNode, func(p *corev1.Pod) []string { return []string{p.Spec.NodeName} })
	l.nodes = controller.Input(l.Loop, l.ofNode)
	return l
}

func ofPod(old, new *corev1.Pod) []controller.Key {
	if old != nil && new != nil && old.UID == new.UID && old.Spec.NodeName == new.Spec.NodeName && reflect.DeepEqual(old.Spec.Tolerations, new.Spec.Tolerations) {
		return nil
	}
	return controller.Self(old, new)
}

func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	if new == nil || old == nil && len(executing(new)) == 0 || old != nil && reflect.DeepEqual(executing(old), executing(new)) {
		return nil
	}
	var keys []controller.Key
	for _, p := range l.pods.By(byNode, new.Name) {
		keys = append(keys, client.KeyOf(p))
	}
	return keys
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	p, ok := l.pods.Get(k.Namespace, k.Name)
	if !ok || p.DeletionTimestamp != nil || p.Spec.NodeName == "" || pod.Finished(p) {
		l.calm(k, nil)
		return nil
	}
	n, ok := l.nodes.Get("", p.Spec.NodeName)
	if !ok {
		return nil // podgc sees to it
	}
	taints := executing(n)
	if len(taints) == 0 {
		l.calm(k, p)
		return nil
	}
	d, forever := patience(p, taints)
	if forever {
		l.calm(k, p)
		return nil
	}
	l.mu.Lock()
	s := l.since[k]
	if s.uid != p.UID {
		s = sighting{p.UID, clock.Now()}
		l.since[k] = s
	}
	l.mu.Unlock()
	if left := clock.Until(s.at.Add(d)); left > 0 {
		l.After(k, left)
		return nil
	}
	return l.evict(ctx, p)
}

// calm forgets when a pod came under taints; p is told when it is there.
func (l *loop) calm(k controller.Key, p *corev1.Pod) {
	l.mu.Lock()
	_, had := l.since[k]
	delete(l.since, k)
	l.mu.Unlock()
	if had && p != nil {
		l.Events.Event(p, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s", k.String())
	}
}

func (l *loop) evict(ctx context.Context, p *corev1.Pod) error {
	l.Events.Event(p, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s", client.KeyOf(p).String())
	pods := client.Of[corev1.Pod](l.Client, p.Namespace)
	c := p.DeepCopy()
	if pod.SetCondition(&c.Status, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation,
		Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint"}, clock.Now()) {
		if _, err := pods.UpdateStatus(ctx, c); err != nil {
			return controller.Ignore(err, apierrors.IsNotFound)
		}
	}
	err := pods.Delete(ctx, p.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if err == nil {
		controller.Removed(&l.Unseen, client.KeyOf(p), l.pods, p)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

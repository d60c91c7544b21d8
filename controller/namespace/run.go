// Package namespace empties the namespaces that are being deleted.
//
// Job: delete all content, pods first, tell in conditions what is left, and let
// the namespace go when nothing is.
//
// Not its job: creating anything in namespaces.
//
// Invariants: a namespace is never let go while discovery is incomplete or an
// object remains.
package namespace

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

type loop struct {
	*controller.Loop
	namespaces *client.Mirror[corev1.Namespace]
}

// New returns the namespace loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "namespace", 10, l.reconcile)
	l.namespaces = controller.Input(l.Loop, func(_, new *corev1.Namespace) []controller.Key {
		if new == nil || new.DeletionTimestamp == nil {
			return nil
		}
		return []controller.Key{client.KeyOf(new)}
	})
	controller.Input(l.Loop, func(old, new *corev1.Pod) []controller.Key {
		if new != nil || old == nil {
			return nil
		}
		// The last pod is what most namespaces wait for.
		if ns, ok := l.namespaces.Get("", old.Namespace); ok && ns.DeletionTimestamp != nil {
			return []controller.Key{client.KeyOf(ns)}
		}
		return nil
	})
	return l
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	ns, ok := l.namespaces.Get("", k.Name)
	if !ok || ns.DeletionTimestamp == nil {
		return nil
	}
	ns, err := client.Of[corev1.Namespace](l.Client, "").Get(ctx, k.Name)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return nil
	}
	f := l.empty(ctx, ns)
	if ns, err = l.report(ctx, ns, f); err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	if !f.empty() {
		if len(f.failed) > 0 || len(f.undiscovered) > 0 {
			return fmt.Errorf("namespace %s: %v %v", k.Name, f.undiscovered, f.failed)
		}
		// Every pass finds fewer; what a finalizer holds may take long.
		wait := time.Second
		if f.podsLeft > 0 {
			wait = f.podsLeft/2 + time.Second
		} else if len(f.finalizers) > 0 {
			wait = 5 * time.Second
		}
		l.After(k, wait)
		return nil
	}
	next := ns.DeepCopy()
	next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err = l.Client.Update(ctx, client.Resource[corev1.Namespace](), "", "finalize", next, nil)
	return controller.Ignore(err, apierrors.IsNotFound)
}

func (l *loop) report(ctx context.Context, ns *corev1.Namespace, f *findings) (*corev1.Namespace, error) {
	cs := conditions(ns.Status.Conditions, f, clock.Now())
	if equality.Semantic.DeepEqual(cs, ns.Status.Conditions) {
		return ns, nil
	}
	next := ns.DeepCopy()
	next.Status.Conditions = cs
	return client.Of[corev1.Namespace](l.Client, "").UpdateStatus(ctx, next)
}

// empty deletes what it finds in ns and tells what is left. While pods are
// left nothing else goes: they may still need it to end well.
func (l *loop) empty(ctx context.Context, ns *corev1.Namespace) *findings {
	f := &findings{remaining: map[string]int{}, finalizers: map[string]int{}}
	served, err := client.Discover(ctx, l.Client)
	if err != nil {
		f.undiscovered = append(f.undiscovered, err.Error())
	}
	pods := client.Resource[corev1.Pod]()
	l.clear(ctx, pods, ns, f)
	if len(f.remaining) > 0 {
		return f
	}
	for i := range served {
		s := &served[i]
		if s.Namespaced && s.GroupVersionResource != pods && s.Has("list", "delete") {
			l.clear(ctx, s.GroupVersionResource, ns, f)
		}
	}
	return f
}

// clear deletes all objects of one resource.
func (l *loop) clear(ctx context.Context, r schema.GroupVersionResource, ns *corev1.Namespace, f *findings) {
	if r.Group == "" && r.Resource == "events" || r.Group == "events.k8s.io" {
		l.clearEvents(ctx, r, ns)
		return
	}
	list, err := l.Client.List(ctx, r, ns.Name, nil)
	if err != nil {
		if !apierrors.IsNotFound(err) && !apierrors.IsMethodNotSupported(err) {
			f.failed = append(f.failed, fmt.Sprintf("unexpected items still remain in namespace: %s for gvr: %v: %v", ns.Name, r, err))
		}
		return
	}
	background := metav1.DeletePropagationBackground
	_, err = controller.SlowStart(ctx, len(list.Items), func(ctx context.Context, i int) error {
		o := list.Items[i]
		if o.GetDeletionTimestamp() != nil {
			return nil
		}
		return controller.Ignore(l.Client.Delete(ctx, r, ns.Name, o.GetName(), &metav1.DeleteOptions{PropagationPolicy: &background}), apierrors.IsNotFound)
	})
	if err != nil {
		f.failed = append(f.failed, err.Error())
	}
	if len(list.Items) > 0 {
		l.recount(ctx, r, ns, f)
	}
}

// clearEvents deletes events without waiting: new ones about the deletion may
// come at any time, and they expire.
func (l *loop) clearEvents(ctx context.Context, r schema.GroupVersionResource, ns *corev1.Namespace) {
	list, err := l.Client.List(ctx, r, ns.Name, nil)
	if err != nil {
		return
	}
	_, err = controller.SlowStart(ctx, len(list.Items), func(ctx context.Context, i int) error {
		return controller.Ignore(l.Client.Delete(ctx, r, ns.Name, list.Items[i].GetName(), nil), apierrors.IsNotFound)
	})
	if err != nil {
		l.Log.Debug("events are left", "namespace", ns.Name, "err", err)
	}
}

// recount looks what deletion left behind.
func (l *loop) recount(ctx context.Context, r schema.GroupVersionResource, ns *corev1.Namespace, f *findings) {
	list, err := l.Client.List(ctx, r, ns.Name, nil)
	if err != nil || len(list.Items) == 0 {
		if err != nil {
			f.failed = append(f.failed, err.Error())
		}
		return
	}
	name := r.Resource + "." + r.Group
	f.remaining[name] += len(list.Items)
	for _, o := range list.Items {
		for _, fin := range o.GetFinalizers() {
			f.finalizers[fin]++
		}
		f.podsLeft = max(f.podsLeft, graceLeft(o))
	}
}

func graceLeft(o api.Object) time.Duration {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return 0
	}
	if p.DeletionGracePeriodSeconds != nil {
		return time.Duration(*p.DeletionGracePeriodSeconds) * time.Second
	}
	return 0
}

// Package volumeexpand tells who asked for a larger volume that somebody else
// makes it larger.
//
// Job: an event about each claim that asks for more than it has.
//
// Not its job: expanding (the drivers' resizers, and the kubelet on the node).
//
// Invariants: nothing is changed.
package volumeexpand

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

type claim = corev1.PersistentVolumeClaim

type loop struct {
	*controller.Loop
	claims  *client.Mirror[claim]
	volumes *client.Mirror[corev1.PersistentVolume]
}

// New returns the volumeexpand loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "volume_expand", 10, l.reconcile).As(d, "expand-controller")
	l.Events = client.Recorder(l.Client, "volume_expand", "")
	l.claims = controller.Input(l.Loop, ofClaim)
	l.volumes = controller.Input[corev1.PersistentVolume](l.Loop, nil)
	return l
}

// ofClaim looks at bound claims that come, and at those that ask for more or have more.
func ofClaim(old, new *claim) []controller.Key {
	if new == nil || new.Status.Phase != corev1.ClaimBound {
		return nil
	}
	if old != nil && more(old.Spec.Resources.Requests, new.Spec.Resources.Requests) <= 0 && more(old.Status.Capacity, new.Status.Capacity) <= 0 {
		return nil
	}
	return controller.Self(old, new)
}

// more compares what b has with what a has.
func more(a, b corev1.ResourceList) int {
	x, y := a[corev1.ResourceStorage], b[corev1.ResourceStorage]
	return y.Cmp(x)
}

func (l *loop) reconcile(_ context.Context, k controller.Key) error {
	c, ok := l.claims.Get(k.Namespace, k.Name)
	if !ok || more(c.Status.Capacity, c.Spec.Resources.Requests) <= 0 {
		return nil
	}
	v, ok := l.volumes.Get("", c.Spec.VolumeName)
	if !ok {
		return fmt.Errorf("failed to get PV %q: not found", c.Spec.VolumeName)
	}
	if ref := v.Spec.ClaimRef; ref == nil || ref.Namespace != c.Namespace || ref.UID != c.UID {
		return fmt.Errorf("persistent Volume is not bound to PVC being updated : %s", k)
	}
	l.Events.Event(c, corev1.EventTypeNormal, "ExternalExpanding", "waiting for an external controller to expand this PVC")
	return nil
}

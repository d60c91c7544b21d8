// Package ephemeralvolume makes the claims of pods' ephemeral volumes.
//
// Job: create the claim that an ephemeral volume's template describes, owned
// by its pod.
//
// Not its job: binding it (volumebinder), deleting it (garbagecollector).
//
// Invariants: a claim of the name that belongs to somebody else is never touched.
package ephemeralvolume

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/semantics/volume"
)

var kind = corev1.SchemeGroupVersion.WithKind("Pod")

type loop struct {
	*controller.Loop
	pods   *client.Mirror[corev1.Pod]
	claims *client.Mirror[corev1.PersistentVolumeClaim]
	made   *prometheus.CounterVec
	failed *prometheus.CounterVec
}

// New returns the ephemeralvolume loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{
		made:   d.Metrics.Counters(prometheus.CounterOpts{Name: "ephemeral_volume_controller_create_total", Help: "Number of PersistentVolumeClaim creation requests"}),
		failed: d.Metrics.Counters(prometheus.CounterOpts{Name: "ephemeral_volume_controller_create_failures_total", Help: "Number of PersistentVolumeClaim creation requests that failed"}),
	}
	l.Loop = controller.NewLoop(d, "ephemeral-volume", 5, l.reconcile)
	l.Events = client.Recorder(l.Client, "ephemeral_volume", "")
	l.pods = controller.Input(l.Loop, func(_, new *corev1.Pod) []controller.Key {
		if new == nil || new.DeletionTimestamp != nil {
			return nil
		}
		for i := range new.Spec.Volumes {
			if new.Spec.Volumes[i].Ephemeral != nil {
				return []controller.Key{client.KeyOf(new)}
			}
		}
		return nil
	})
	l.claims = controller.Input(l.Loop, func(old, new *corev1.PersistentVolumeClaim) []controller.Key {
		if new != nil {
			return nil
		}
		return controller.OwnerKeys(old, kind) // someone deleted it too early
	})
	return l
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	p, ok := l.pods.Get(k.Namespace, k.Name)
	if !ok || p.DeletionTimestamp != nil {
		return nil
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil {
			continue
		}
		if err := l.one(ctx, p, v); err != nil {
			l.Events.Event(p, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
			return err
		}
	}
	return nil
}

func (l *loop) one(ctx context.Context, p *corev1.Pod, v *corev1.Volume) error {
	next := claimFor(p, v)
	if has, ok := l.claims.Get(p.Namespace, next.Name); ok {
		return volume.MadeFor(p, has)
	}
	l.made.WithLabelValues().Inc()
	made, err := client.Of[corev1.PersistentVolumeClaim](l.Client, p.Namespace).Create(ctx, next)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		l.failed.WithLabelValues().Inc()
		return err
	}
	controller.Wrote(&l.Unseen, client.KeyOf(p), l.claims, made)
	return nil
}

// claimFor makes the claim that an ephemeral volume of a pod describes.
func claimFor(p *corev1.Pod, v *corev1.Volume) *corev1.PersistentVolumeClaim {
	t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
	name, _, _ := volume.ClaimName(p, v)
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.Namespace, Annotations: t.Annotations, Labels: t.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, kind)}},
		Spec: t.Spec,
	}
}

package protection

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// loop keeps one kind.
type loop[T any] struct {
	*controller.Loop
	objects   *client.Mirror[T]
	finalizer string
	used      func(ctx context.Context, o *T) (bool, error)
}

func newLoop[T any](d controller.Deps, name, finalizer string) *loop[T] {
	l := &loop[T]{finalizer: finalizer}
	l.Loop = controller.NewLoop(d, name, 1, l.reconcile)
	l.objects = controller.Input(l.Loop, controller.Self[T])
	return l
}

func (l *loop[T]) reconcile(ctx context.Context, k controller.Key) error {
	o, ok := l.objects.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	obj := any(o).(api.Object)
	has := slices.Contains(obj.GetFinalizers(), l.finalizer)
	switch {
	case obj.GetDeletionTimestamp() != nil && has:
		used, err := l.used(ctx, o)
		if used || err != nil {
			return err
		}
		return l.write(ctx, obj, slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == l.finalizer }))
	case obj.GetDeletionTimestamp() == nil && !has:
		return l.write(ctx, obj, append(slices.Clone(obj.GetFinalizers()), l.finalizer))
	}
	return nil
}

func (l *loop[T]) write(ctx context.Context, obj api.Object, finalizers []string) error {
	c := obj.DeepCopyObject().(api.Object)
	c.SetFinalizers(finalizers)
	wrote, err := client.Of[T](l.Client, obj.GetNamespace()).Update(ctx, any(c).(*T))
	if err == nil {
		controller.Wrote(&l.Unseen, controller.Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}, l.objects, wrote)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

// NewClaims returns the loop of PersistentVolumeClaims.
func NewClaims(d controller.Deps) controller.Controller {
	l := newLoop[corev1.PersistentVolumeClaim](d, "pvc-protection", volume.ClaimProtection)
	pods := controller.Input(l.Loop, func(old, new *corev1.Pod) []controller.Key {
		if old != nil && new != nil && old.UID == new.UID {
			return nil // volumes never change, and only a pod's going frees them
		}
		var keys []controller.Key
		for _, p := range []*corev1.Pod{old, new} {
			if p == nil {
				continue
			}
			for i := range p.Spec.Volumes {
				if name, _, ok := volume.ClaimName(p, &p.Spec.Volumes[i]); ok {
					keys = append(keys, controller.Key{Namespace: p.Namespace, Name: name})
				}
			}
		}
		return keys
	})
	l.used = func(ctx context.Context, c *corev1.PersistentVolumeClaim) (bool, error) {
		if slices.ContainsFunc(pods.List(c.Namespace), func(p *corev1.Pod) bool { return holds(p, c) }) {
			return true, nil
		}
		live, err := client.Of[corev1.Pod](l.Client, c.Namespace).List(ctx, nil)
		return slices.ContainsFunc(live, func(p *corev1.Pod) bool { return holds(p, c) }), err
	}
	return l
}

// holds says whether a pod keeps a claim: a kubelet refuses to start a pod
// whose claim is being deleted, so one without a node does not.
func holds(p *corev1.Pod, c *corev1.PersistentVolumeClaim) bool {
	return p.Spec.NodeName != "" && volume.Uses(p, c.Name)
}

// NewVolumes returns the loop of PersistentVolumes.
func NewVolumes(d controller.Deps) controller.Controller {
	l := newLoop[corev1.PersistentVolume](d, "pv-protection", volume.VolumeProtection)
	l.used = func(_ context.Context, v *corev1.PersistentVolume) (bool, error) {
		return v.Status.Phase == corev1.VolumeBound, nil
	}
	return l
}

// NewAttributes returns the loop of VolumeAttributesClasses.
func NewAttributes(d controller.Deps) controller.Controller {
	l := newLoop[storagev1.VolumeAttributesClass](d, "volumeattributesclass-protection", volume.AttrClassProtection)
	keys := func(names ...string) []controller.Key {
		var out []controller.Key
		for _, n := range names {
			if n != "" {
				out = append(out, controller.Key{Name: n})
			}
		}
		return out
	}
	controller.Input(l.Loop, func(old, _ *corev1.PersistentVolumeClaim) []controller.Key {
		if old == nil {
			return nil
		}
		return keys(ofClaim(old)...)
	})
	controller.Input(l.Loop, func(old, _ *corev1.PersistentVolume) []controller.Key {
		if old == nil {
			return nil
		}
		return keys(ptr.Deref(old.Spec.VolumeAttributesClassName, ""))
	})
	l.used = func(ctx context.Context, c *storagev1.VolumeAttributesClass) (bool, error) {
		claims, err := client.Of[corev1.PersistentVolumeClaim](l.Client, metav1.NamespaceAll).List(ctx, nil)
		if err != nil || slices.ContainsFunc(claims, func(p *corev1.PersistentVolumeClaim) bool { return slices.Contains(ofClaim(p), c.Name) }) {
			return true, err
		}
		volumes, err := client.Of[corev1.PersistentVolume](l.Client, "").List(ctx, nil)
		return slices.ContainsFunc(volumes, func(v *corev1.PersistentVolume) bool {
			return ptr.Deref(v.Spec.VolumeAttributesClassName, "") == c.Name
		}), err
	}
	return l
}

// ofClaim are the attribute classes a claim has, asks for, or is on the way to.
func ofClaim(c *corev1.PersistentVolumeClaim) []string {
	out := []string{ptr.Deref(c.Spec.VolumeAttributesClassName, ""), ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "")}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		out = append(out, m.TargetVolumeAttributesClassName)
	}
	return out
}

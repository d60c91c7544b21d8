package volumebinder

import (
	"context"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// Indexes: the claims of a class that wait for a volume, the claims that name a
// volume, and the pods that use a claim.
const (
	byClass  = "pending"
	byVolume = "volume"
	byClaim  = "claim"
)

// loop works on claims, and on volumes: keys without a namespace.
type loop struct {
	*controller.Loop
	claims  *client.Mirror[claim]
	volumes *client.Mirror[pv]
	classes *client.Mirror[storagev1.StorageClass]
	pods    *client.Mirror[corev1.Pod]
	remove  func(path string) error
	again   map[string]time.Time // when a volume that could not be emptied is tried again
}

// New returns the volumebinder loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{remove: os.RemoveAll, again: map[string]time.Time{}}
	l.Loop = controller.NewLoop(d, "persistent-volume-binder", 1, l.reconcile).As(d, "persistent-volume-binder")
	l.Events = client.Recorder(l.Client, "persistentvolume-controller", "")
	l.claims = controller.Input(l.Loop, l.ofClaim)
	l.volumes = controller.Input(l.Loop, l.ofVolume)
	l.classes = controller.Input(l.Loop, func(_, new *storagev1.StorageClass) []controller.Key {
		if new == nil {
			return nil
		}
		return l.waiting(new.Name)
	})
	l.pods = controller.Input(l.Loop, ofPod)
	l.claims.Index(byClass, func(c *claim) []string {
		if _, done := c.Annotations[volume.BindCompleted]; done || c.Spec.VolumeName != "" {
			return nil
		}
		return []string{volume.ClassOf(c)}
	})
	l.claims.Index(byVolume, func(c *claim) []string {
		if c.Spec.VolumeName == "" {
			return nil
		}
		return []string{c.Spec.VolumeName}
	})
	l.pods.Index(byClaim, func(p *corev1.Pod) []string {
		var out []string
		for i := range p.Spec.Volumes {
			if name, _, ok := volume.ClaimName(p, &p.Spec.Volumes[i]); ok {
				out = append(out, p.Namespace+"/"+name)
			}
		}
		return out
	})
	return l
}

func (l *loop) waiting(class string) []controller.Key {
	var keys []controller.Key
	for _, c := range l.claims.By(byClass, class) {
		keys = append(keys, client.KeyOf(c))
	}
	return keys
}

// ofClaim looks at the claim, and at the volume that a claim leaves or names.
func (l *loop) ofClaim(old, new *claim) []controller.Key {
	keys := controller.Self(old, new)
	for _, c := range []*claim{old, new} {
		if c != nil && c.Spec.VolumeName != "" {
			keys = append(keys, controller.Key{Name: c.Spec.VolumeName})
		}
	}
	return keys
}

// ofVolume looks at the volume, the claims that name it, and those it may serve.
func (l *loop) ofVolume(old, new *pv) []controller.Key {
	keys := controller.Self(old, new)
	for _, c := range l.claims.By(byVolume, keys[0].Name) {
		keys = append(keys, client.KeyOf(c))
	}
	if new != nil && new.Status.Phase == corev1.VolumeAvailable {
		if ref := new.Spec.ClaimRef; ref != nil {
			return append(keys, controller.Key{Namespace: ref.Namespace, Name: ref.Name})
		}
		keys = append(keys, l.waiting(volume.ClassOfVolume(new))...)
	}
	return keys
}

// ofPod looks at the volume that a pod recycles.
func ofPod(old, new *corev1.Pod) []controller.Key {
	if new == nil {
		new = old
	}
	if name, ok := strings.CutPrefix(new.Name, recyclerPrefix); ok && new.Namespace == metav1.NamespaceDefault {
		return []controller.Key{{Name: name}}
	}
	return nil
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	if k.Namespace == "" {
		if v, ok := l.volumes.Get("", k.Name); ok {
			return l.oneVolume(ctx, v)
		}
		return nil
	}
	if c, ok := l.claims.Get(k.Namespace, k.Name); ok {
		return l.oneClaim(ctx, c)
	}
	return nil
}

func (l *loop) world() world {
	return world{
		volumes: l.volumes.List(""),
		volume: func(name string) *pv {
			v, _ := l.volumes.Get("", name)
			return v
		},
		class: func(name string) *storagev1.StorageClass {
			c, _ := l.classes.Get("", name)
			return c
		},
		waiting: func(c *claim) string {
			for _, p := range l.pods.By(byClaim, client.KeyOf(c).String()) {
				if p.Spec.NodeName == "" && !pod.Finished(p) {
					return p.Name
				}
			}
			return ""
		},
	}
}

func (l *loop) oneClaim(ctx context.Context, c *claim) error {
	d := decideClaim(c, l.world())
	if d.err != nil {
		return d.err
	}
	if d.bind != nil {
		return l.bind(ctx, c, d.bind)
	}
	for _, e := range d.tell {
		if d.phase == corev1.ClaimLost && c.Status.Phase == corev1.ClaimLost {
			break // told when it was lost
		}
		l.Events.Event(c, e.kind, e.reason, "%s", e.message)
	}
	if p := d.provisioner; p != "" && (c.Annotations[volume.Provisioner] != p || c.Annotations[volume.BetaProvisioner] != p) {
		c = c.DeepCopy()
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.Provisioner, p)
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.BetaProvisioner, p)
		var err error
		if c, err = l.writeClaim(ctx, c); err != nil {
			return err
		}
	}
	return l.claimPhase(ctx, c, d.phase, nil)
}

// bind writes the volume first, so that no other claim can have it.
func (l *loop) bind(ctx context.Context, c *claim, v *pv) error {
	k := client.KeyOf(c)
	next, fresh := volume.Bind(v, c)
	if fresh {
		var err error
		if v, err = client.Of[pv](l.Client, "").Update(ctx, next); err != nil {
			return err
		}
		controller.Wrote(&l.Unseen, k, l.volumes, v)
	}
	v, err := l.volumePhase(ctx, v, corev1.VolumeBound, "")
	if err != nil {
		return err
	}
	controller.Wrote(&l.Unseen, k, l.volumes, v)
	if own, fresh := chosen(c, v); fresh {
		if c, err = l.writeClaim(ctx, own); err != nil {
			return err
		}
	}
	return l.claimPhase(ctx, c, corev1.ClaimBound, v)
}

func (l *loop) writeClaim(ctx context.Context, c *claim) (*claim, error) {
	wrote, err := client.Of[claim](l.Client, c.Namespace).Update(ctx, c)
	if err == nil {
		controller.Wrote(&l.Unseen, client.KeyOf(c), l.claims, wrote)
	}
	return wrote, err
}

func (l *loop) claimPhase(ctx context.Context, c *claim, phase corev1.PersistentVolumeClaimPhase, v *pv) error {
	if phase == "" {
		return nil
	}
	s := claimStatus(c, phase, v)
	if equality.Semantic.DeepEqual(s, c.Status) {
		return nil
	}
	next := c.DeepCopy()
	next.Status = s
	wrote, err := client.Of[claim](l.Client, c.Namespace).UpdateStatus(ctx, next)
	if err == nil {
		controller.Wrote(&l.Unseen, client.KeyOf(c), l.claims, wrote)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

func (l *loop) volumePhase(ctx context.Context, v *pv, phase corev1.PersistentVolumePhase, message string) (*pv, error) {
	if phase == "" || v.Status.Phase == phase && v.Status.Message == message {
		return v, nil
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	wrote, err := client.Of[pv](l.Client, "").UpdateStatus(ctx, next)
	if err != nil {
		return v, controller.Ignore(err, apierrors.IsNotFound)
	}
	controller.Wrote(&l.Unseen, client.KeyOf(v), l.volumes, wrote)
	return wrote, nil
}

func (l *loop) oneVolume(ctx context.Context, v *pv) error {
	c, err := l.claimOf(ctx, v)
	if err != nil {
		return err
	}
	d := decideVolume(v, c)
	for _, e := range d.tell {
		l.Events.Event(v, e.kind, e.reason, "%s", e.message)
	}
	if d.wake {
		l.Add(controller.Key{Namespace: v.Spec.ClaimRef.Namespace, Name: v.Spec.ClaimRef.Name})
	}
	if d.unbind {
		return l.unbind(ctx, v)
	}
	if v, err = l.volumePhase(ctx, v, d.phase, ""); err != nil || !d.reclaim {
		return err
	}
	return l.reclaim(ctx, v)
}

// claimOf finds the claim a volume names. That one has gone is only believed
// when the server says so.
func (l *loop) claimOf(ctx context.Context, v *pv) (*claim, error) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return nil, nil
	}
	if c, ok := l.claims.Get(ref.Namespace, ref.Name); ok && c.UID == ref.UID {
		return c, nil
	}
	if v.Status.Phase == corev1.VolumeReleased || v.Status.Phase == corev1.VolumeFailed {
		return nil, nil
	}
	c, err := client.Of[claim](l.Client, ref.Namespace).Get(ctx, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return c, err
}

func (l *loop) unbind(ctx context.Context, v *pv) error {
	next := freed(v)
	if !equality.Semantic.DeepEqual(next, v) {
		wrote, err := client.Of[pv](l.Client, "").Update(ctx, next)
		if err != nil {
			return controller.Ignore(err, apierrors.IsNotFound)
		}
		controller.Wrote(&l.Unseen, client.KeyOf(v), l.volumes, wrote)
		v = wrote
	}
	_, err := l.volumePhase(ctx, v, corev1.VolumeAvailable, "")
	return err
}

package volumebinder

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

// recycleRetry is upstream's wait after a recycler that failed.
const recycleRetry = 15 * time.Second

// reclaim does with a released volume what its policy says.
func (l *loop) reclaim(ctx context.Context, v *pv) error {
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain, "":
		return nil
	case corev1.PersistentVolumeReclaimDelete:
		return l.deleteVolume(ctx, v)
	case corev1.PersistentVolumeReclaimRecycle:
		return l.recycle(ctx, v)
	}
	return l.fail(ctx, v, "VolumeUnknownReclaimPolicy", "Volume has an unrecognized reclaim policy")
}

func (l *loop) fail(ctx context.Context, v *pv, reason, message string) error {
	if v.Status.Phase != corev1.VolumeFailed || v.Status.Message != message {
		l.Events.Event(v, corev1.EventTypeWarning, reason, "%s", message)
	}
	_, err := l.volumePhase(ctx, v, corev1.VolumeFailed, message)
	return err
}

func (l *loop) deleteVolume(ctx context.Context, v *pv) error {
	if v.DeletionTimestamp != nil {
		return nil
	}
	path, err := deleter(v)
	if err == nil && path == "" {
		return nil // its provisioner does it
	}
	if err == nil {
		err = l.remove(path)
	}
	if err != nil {
		return l.fail(ctx, v, "VolumeFailedDelete", err.Error())
	}
	err = client.Of[pv](l.Client, "").Delete(ctx, v.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(v.UID))})
	if err == nil {
		controller.Removed(&l.Unseen, client.KeyOf(v), l.volumes, v)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

// recycle runs the pod that empties the volume; its end brings us back here.
func (l *loop) recycle(ctx context.Context, v *pv) error {
	wanted := recycler(v)
	if wanted == nil {
		return l.fail(ctx, v, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	pods := client.Of[corev1.Pod](l.Client, wanted.Namespace)
	k := client.KeyOf(v)
	p, running := l.pods.Get(wanted.Namespace, wanted.Name)
	switch wait := clock.Until(l.again[v.Name]); {
	case running && p.DeletionTimestamp != nil:
		return nil // an earlier round's; its going brings us back
	case !running && wait > 0:
		l.After(k, wait)
		return nil
	case !running:
		made, err := pods.Create(ctx, wanted)
		if err == nil {
			controller.Wrote(&l.Unseen, k, l.pods, made)
			l.Events.Event(v, corev1.EventTypeNormal, "RecyclerPod", "Recycler pod: created")
		}
		return controller.Ignore(err, apierrors.IsAlreadyExists)
	}
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		l.Events.Event(v, corev1.EventTypeNormal, "VolumeRecycled", "Volume recycled")
		delete(l.again, v.Name)
		if err := l.unbind(ctx, v); err != nil {
			return err
		}
	case corev1.PodFailed:
		l.again[v.Name] = clock.Now().Add(recycleRetry)
		if err := l.fail(ctx, v, "VolumeFailedRecycle", "Recycle failed: "+p.Status.Message); err != nil {
			return err
		}
	default:
		return nil
	}
	err := pods.Delete(ctx, p.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	return controller.Ignore(err, apierrors.IsNotFound)
}

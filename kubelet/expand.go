package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/csi"
	"github.com/sampan-dev/sampan/semantics/volume"
)

// growth says whether a claim's volume is to be expanded on the node, and to
// which size: its controller has made it larger already.
func growth(pvc *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) (resource.Quantity, bool) {
	const storage = corev1.ResourceStorage
	if size, ok := pvc.Status.AllocatedResources[storage]; ok {
		switch pvc.Status.AllocatedResourceStatuses[storage] {
		case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress:
			return size, true
		}
		return resource.Quantity{}, false
	}
	// A resizer of before v1.34 tells by a condition and the volume's size alone.
	size, have := pv.Spec.Capacity[storage], pvc.Status.Capacity[storage]
	pending := slices.ContainsFunc(pvc.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == corev1.PersistentVolumeClaimFileSystemResizePending && c.Status == corev1.ConditionTrue
	})
	return size, pending && size.Cmp(have) > 0
}

// expand lets the volumes of a pod grow that their controllers made larger. It
// is done again at the next look when it fails: a small volume is a volume.
func (k *Kubelet) expand(ctx context.Context, pod *corev1.Pod) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name, _, ok := volume.ClaimName(pod, v)
		if !ok {
			continue
		}
		pvc, err := client.Of[corev1.PersistentVolumeClaim](k.deps.Client, pod.Namespace).Get(ctx, name)
		if err != nil || pvc.Spec.VolumeName == "" || len(pvc.Status.AllocatedResourceStatuses)+len(pvc.Status.Conditions) == 0 {
			continue // the usual case costs one question
		}
		pv, err := client.Of[corev1.PersistentVolume](k.deps.Client, "").Get(ctx, pvc.Spec.VolumeName)
		if err != nil || pv.Spec.CSI == nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != pvc.UID {
			continue
		}
		size, grows := growth(pvc, pv)
		if !grows {
			continue
		}
		if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly || pv.Spec.CSI.ReadOnly {
			k.tellGrowth(pod, pvc, corev1.EventTypeWarning, "FileSystemResizeFailed", volumeMessage("MountVolume.NodeExpandVolume failed", pv.Name, "requested read-only file system"))
			continue
		}
		if err := k.grow(ctx, pod, pvc, pv, size); err != nil && ctx.Err() == nil {
			k.containerEvent(pod, "", corev1.EventTypeWarning, "VolumeResizeFailed", volumeMessage("NodeExpandVolume.NodeExpandVolume failed", pv.Name, ": "+err.Error()))
		}
	}
}

// volumeMessage is upstream's: what, for which volume, and what more there is to say.
func volumeMessage(what, volume, more string) string {
	return fmt.Sprintf("%s for volume %q %s", what, volume, more)
}

func (k *Kubelet) tellGrowth(pod *corev1.Pod, pvc *corev1.PersistentVolumeClaim, kind, reason, message string) {
	k.containerEvent(pod, "", kind, reason, message)
	k.deps.Events.Event(pvc, kind, reason, "%s", message)
}

// grow has the driver expand one volume, and says in the claim how that went.
func (k *Kubelet) grow(ctx context.Context, pod *corev1.Pod, pvc *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume, size resource.Quantity) error {
	pvc, err := k.patchClaim(ctx, pvc, func(s *corev1.PersistentVolumeClaimStatus) {
		if _, ok := s.AllocatedResources[corev1.ResourceStorage]; ok {
			s.AllocatedResourceStatuses[corev1.ResourceStorage] = corev1.PersistentVolumeClaimNodeResizeInProgress
		}
	})
	if err != nil {
		return err
	}
	err = k.drivers.Expand(ctx, &csi.Request{
		Pod: pod, Name: pv.Name, Source: pv.Spec.CSI, Modes: pv.Spec.AccessModes, Options: pv.Spec.MountOptions, Root: k.cfg.Root,
		Block: volume.Mode(pv.Spec.VolumeMode) == corev1.PersistentVolumeBlock, Dir: k.volumes.DriverDir(pod.UID, pv.Name),
	}, size)
	if err != nil {
		return k.notGrown(ctx, pvc, err)
	}
	k.tellGrowth(pod, pvc, corev1.EventTypeNormal, "FileSystemResizeSuccessful", volumeMessage("MountVolume.NodeExpandVolume succeeded", pv.Name, k.cfg.NodeName))
	_, err = k.patchClaim(ctx, pvc, func(s *corev1.PersistentVolumeClaimStatus) {
		if s.Capacity == nil {
			s.Capacity = corev1.ResourceList{}
		}
		s.Capacity[corev1.ResourceStorage] = size
		delete(s.AllocatedResourceStatuses, corev1.ResourceStorage)
		s.Conditions = slices.DeleteFunc(s.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
			switch c.Type {
			case corev1.PersistentVolumeClaimFileSystemResizePending, corev1.PersistentVolumeClaimResizing,
				corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError:
				return true
			}
			return false
		})
	})
	if err != nil {
		return fmt.Errorf("mountVolume.NodeExpandVolume update pvc status failed: %w", err)
	}
	return nil
}

// notGrown notes a failure in the claim, unless the driver may succeed yet.
func (k *Kubelet) notGrown(ctx context.Context, pvc *corev1.PersistentVolumeClaim, failure error) error {
	if errors.Is(failure, csi.ErrTransient) {
		return failure
	}
	_, err := k.patchClaim(ctx, pvc, func(s *corev1.PersistentVolumeClaimStatus) {
		if _, ok := s.AllocatedResources[corev1.ResourceStorage]; ok && errors.Is(failure, csi.ErrInfeasible) {
			s.AllocatedResourceStatuses[corev1.ResourceStorage] = corev1.PersistentVolumeClaimNodeResizeInfeasible
		}
		next := corev1.PersistentVolumeClaimCondition{
			Type: corev1.PersistentVolumeClaimNodeResizeError, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(clock.Now()), Message: fmt.Sprintf("failed to expand pvc with %v", failure),
		}
		for i, c := range s.Conditions {
			if c.Type == next.Type {
				if c.Message == next.Message {
					next.LastTransitionTime = c.LastTransitionTime
				}
				s.Conditions[i] = next
				return
			}
		}
		s.Conditions = append(s.Conditions, next)
	})
	return errors.Join(failure, err)
}

// patchClaim changes a claim's status.
func (k *Kubelet) patchClaim(ctx context.Context, pvc *corev1.PersistentVolumeClaim, change func(*corev1.PersistentVolumeClaimStatus)) (*corev1.PersistentVolumeClaim, error) {
	next := pvc.DeepCopy()
	if next.Status.AllocatedResourceStatuses == nil {
		next.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{}
	}
	change(&next.Status)
	before, err := json.Marshal(&corev1.PersistentVolumeClaim{Status: pvc.Status})
	if err != nil {
		return pvc, err
	}
	after, err := json.Marshal(&corev1.PersistentVolumeClaim{Status: next.Status})
	if err != nil {
		return pvc, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.PersistentVolumeClaim{})
	if err != nil || string(patch) == "{}" {
		return pvc, err
	}
	return client.Of[corev1.PersistentVolumeClaim](k.deps.Client, pvc.Namespace).Patch(ctx, pvc.Name, "status", types.StrategicMergePatchType, patch)
}

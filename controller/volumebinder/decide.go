package volumebinder

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/semantics/volume"
)

type (
	claim = corev1.PersistentVolumeClaim
	pv    = corev1.PersistentVolume
)

// event is something to tell.
type event struct{ kind, reason, message string }

func normal(reason, message string) event {
	return event{corev1.EventTypeNormal, reason, message}
}

func warning(reason, message string) event {
	return event{corev1.EventTypeWarning, reason, message}
}

// forClaim is what is to be done about a claim: bind it, or give it a phase.
type forClaim struct {
	bind        *pv
	phase       corev1.PersistentVolumeClaimPhase // "" leaves it
	tell        []event
	provisioner string // to ask for a volume
	err         error
}

func pending(tell ...event) forClaim { return forClaim{phase: corev1.ClaimPending, tell: tell} }

func lost(reason, message string) forClaim {
	return forClaim{phase: corev1.ClaimLost, tell: []event{warning(reason, message)}}
}

// world is what a decision looks at.
type world struct {
	volumes []*pv
	volume  func(name string) *pv
	class   func(name string) *storagev1.StorageClass
	waiting func(c *claim) string // the pod that needs the claim and has no node yet
}

func decideClaim(c *claim, w world) forClaim {
	if _, done := c.Annotations[volume.BindCompleted]; done {
		return boundClaim(c, w)
	}
	if name := c.Spec.VolumeName; name != "" {
		return askedFor(c, w.volume(name))
	}
	className := volume.ClassOf(c)
	class := w.class(className)
	delay := volume.Delayed(class)
	if v := volume.Find(c, w.volumes, volume.Search{Delay: delay}); v != nil {
		return forClaim{bind: v}
	}
	_, placed := c.Annotations[volume.SelectedNode]
	switch {
	case delay && !placed:
		if pod := w.waiting(c); pod != "" {
			return pending(normal("WaitForPodScheduled", fmt.Sprintf("waiting for pod %s to be scheduled", pod)))
		}
		return pending(normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"))
	case className == "":
		return pending(normal("FailedBinding", "no persistent volumes available for this claim and no storage class is set"))
	case class == nil:
		return pending(warning("ProvisioningFailed", fmt.Sprintf("storageclass.storage.k8s.io %q not found", className)))
	case class.Provisioner == volume.NoProvisioner:
		return pending(warning("ProvisioningFailed", fmt.Sprintf("no volume plugin matched name: %s", class.Provisioner)))
	}
	d := pending(normal("ExternalProvisioning", fmt.Sprintf("Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
		"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)))
	d.provisioner = class.Provisioner
	return d
}

// askedFor is a claim that names its volume.
func askedFor(c *claim, v *pv) forClaim {
	switch {
	case v == nil:
		return pending()
	case v.Spec.ClaimRef == nil:
		if err := volume.Satisfies(v, c); err != nil {
			return pending(warning("VolumeMismatch", fmt.Sprintf("Cannot bind to requested volume %q: %s", v.Name, err)))
		}
		return forClaim{bind: v}
	case volume.BoundTo(v, c):
		return forClaim{bind: v}
	}
	if _, ours := c.Annotations[volume.BoundByController]; !ours {
		return pending(warning("FailedBinding", fmt.Sprintf("volume %q already bound to a different claim.", v.Name)))
	}
	return forClaim{err: fmt.Errorf("invalid binding of claim %q to volume %q: volume already claimed by %q", c.Namespace+"/"+c.Name, v.Name, v.Spec.ClaimRef.Namespace+"/"+v.Spec.ClaimRef.Name)}
}

// boundClaim is a claim that was bound once.
func boundClaim(c *claim, w world) forClaim {
	if c.Spec.VolumeName == "" {
		return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	v := w.volume(c.Spec.VolumeName)
	switch {
	case v == nil:
		return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case v.Spec.ClaimRef == nil, v.Spec.ClaimRef.UID == c.UID:
		return forClaim{bind: v}
	}
	return lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

// forVolume is what is to be done about a volume.
type forVolume struct {
	phase   corev1.PersistentVolumePhase // "" leaves it
	reclaim bool
	unbind  bool
	wake    bool // its claim has to be looked at
	tell    []event
}

// decideVolume is given the claim that the volume names, nil when there is none.
func decideVolume(v *pv, c *claim) forVolume {
	ref := v.Spec.ClaimRef
	_, ours := v.Annotations[volume.BoundByController]
	if ref == nil || ref.UID == "" {
		return forVolume{phase: corev1.VolumeAvailable, wake: ref != nil}
	}
	if c != nil && c.UID != ref.UID {
		c = nil // another one of the same name
	}
	switch {
	case c == nil:
		return released(v)
	case c.Spec.VolumeName == "" && volume.Mode(c.Spec.VolumeMode) != volume.Mode(v.Spec.VolumeMode):
		return forVolume{tell: []event{warning("VolumeMismatch", fmt.Sprintf("Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", c.Name))}}
	case c.Spec.VolumeName == "":
		return forVolume{wake: true}
	case c.Spec.VolumeName == v.Name:
		return forVolume{phase: corev1.VolumeBound}
	}
	if by := v.Annotations[volume.ProvisionedBy]; by != "" && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		return released(v) // made for this claim, which is bound elsewhere
	}
	return forVolume{unbind: true, wake: ours}
}

func released(v *pv) forVolume {
	d := forVolume{reclaim: true}
	if v.Status.Phase != corev1.VolumeFailed {
		d.phase = corev1.VolumeReleased
	}
	return d
}

// freed returns a volume without its claim.
func freed(v *pv) *pv {
	v = v.DeepCopy()
	if _, ours := v.Annotations[volume.BoundByController]; ours {
		delete(v.Annotations, volume.BoundByController)
		v.Spec.ClaimRef = nil
	} else if v.Spec.ClaimRef != nil {
		v.Spec.ClaimRef.UID, v.Spec.ClaimRef.ResourceVersion = "", "" // the user chose the claim: it stays reserved
	}
	return v
}

// chosen returns a claim naming the volume as its own, and whether that is new.
func chosen(c *claim, v *pv) (*claim, bool) {
	_, done := c.Annotations[volume.BindCompleted]
	if done && c.Spec.VolumeName == v.Name {
		return c, false
	}
	c = c.DeepCopy()
	if c.Spec.VolumeName != v.Name {
		c.Spec.VolumeName = v.Name
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.BoundByController, "yes")
	}
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, volume.BindCompleted, "yes")
	return c, true
}

// claimStatus is a claim's status in a phase, bound to v if that is not nil.
func claimStatus(c *claim, phase corev1.PersistentVolumeClaimPhase, v *pv) corev1.PersistentVolumeClaimStatus {
	s := *c.Status.DeepCopy()
	was := s.Phase
	s.Phase = phase
	if v == nil {
		if phase == corev1.ClaimPending {
			s.AccessModes, s.Capacity = nil, nil
		}
		return s
	}
	s.AccessModes = v.Spec.AccessModes
	size, ok := v.Spec.Capacity[corev1.ResourceStorage]
	if _, known := s.Capacity[corev1.ResourceStorage]; ok && (!known || was != corev1.ClaimBound) {
		// Later changes are the resizer's to tell.
		s.Capacity = corev1.ResourceList{corev1.ResourceStorage: size}
	}
	if was != corev1.ClaimBound {
		s.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
	}
	return s
}

// deleter is how a released volume is deleted: "" by somebody else, else by
// removing a directory.
func deleter(v *pv) (path string, err error) {
	if by := v.Annotations[volume.ProvisionedBy]; by != "" && !strings.HasPrefix(by, "kubernetes.io/") {
		return "", nil
	}
	if v.Spec.HostPath == nil {
		return "", fmt.Errorf("error getting deleter volume plugin for volume %q: %w", v.Name, errors.New("no deletable volume plugin matched"))
	}
	if p := v.Spec.HostPath.Path; !deletable.MatchString(p) || strings.Contains(p, "..") {
		return "", fmt.Errorf("host_path deleter only supports /tmp/.+ but received provided %s", p)
	}
	return v.Spec.HostPath.Path, nil
}

var deletable = regexp.MustCompile(`^/tmp/.+`)

const recyclerPrefix = "recycler-for-"

// recycler is the pod that empties a volume; nil when there is none for its kind.
func recycler(v *pv) *corev1.Pod {
	var source corev1.VolumeSource
	switch s := v.Spec.PersistentVolumeSource; {
	case s.HostPath != nil:
		source.HostPath = s.HostPath
	case s.NFS != nil:
		source.NFS = s.NFS
	default:
		return nil
	}
	deadline := int64(3600)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: recyclerPrefix + v.Name, Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			ActiveDeadlineSeconds: &deadline, RestartPolicy: corev1.RestartPolicyNever,
			Volumes: []corev1.Volume{{Name: "vol", VolumeSource: source}},
			Containers: []corev1.Container{{
				Name: "pv-recycler", Image: "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6",
				Command:      []string{"/bin/sh"},
				Args:         []string{"-c", `test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1`},
				VolumeMounts: []corev1.VolumeMount{{Name: "vol", MountPath: "/scrub"}},
			}},
		},
	}
}

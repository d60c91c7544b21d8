// Package persistentvolume defines the PersistentVolume kind.
//
// Job: defaults, rules and columns of core/v1 PersistentVolume.
//
// Not its job: binding, provisioning, mounting.
//
// Invariants: a volume has one source, and it never changes.
package persistentvolume

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/resource"
)

type volume = corev1.PersistentVolume

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[volume]{
		Version: "v1", Kind: "PersistentVolume", Plural: "persistentvolumes",
		Short: []string{"pv"}, ClusterScoped: true,
		Default: setDefaults, Prepare: prepare, Validate: validate, Warnings: warnings,
		Subs: []resource.Sub[volume]{
			{Name: "status", Prepare: prepareStatus, ResetFields: []string{"spec"}},
		},
		Columns:       columns(),
		Selectable:    map[string]func(*volume) string{"name": func(v *volume) string { return v.Name }},
		Unconditional: true,
		ResetFields:   []string{"status"},
	})
}

func setDefaults(v *volume) {
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	s := &v.Spec
	if s.PersistentVolumeReclaimPolicy == "" {
		s.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if s.VolumeMode == nil {
		s.VolumeMode = new(corev1.PersistentVolumeFilesystem)
	}
	if s.HostPath != nil && s.HostPath.Type == nil {
		s.HostPath.Type = new(corev1.HostPathUnset)
	}
	if c := s.ISCSI; c != nil && c.ISCSIInterface == "" {
		c.ISCSIInterface = "default"
	}
	if c := s.RBD; c != nil {
		setEmpty(&c.RBDPool, "rbd")
		setEmpty(&c.RadosUser, "admin")
		setEmpty(&c.Keyring, "/etc/ceph/keyring")
	}
	if c := s.ScaleIO; c != nil {
		setEmpty(&c.StorageMode, "ThinProvisioned")
		setEmpty(&c.FSType, "xfs")
	}
	if c := s.AzureDisk; c != nil {
		setNil(&c.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setNil(&c.Kind, corev1.AzureSharedBlobDisk)
		setNil(&c.FSType, "ext4")
		setNil(&c.ReadOnly, false)
	}
}

func setEmpty(p *string, value string) {
	if *p == "" {
		*p = value
	}
}

func setNil[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func prepare(r *resource.Request, next, prev *volume) {
	if prev != nil {
		next.Status = prev.Status
		return
	}
	next.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: new(metav1.NewTime(r.Now))}
}

// prepareStatus notes when the phase changed, unless the user did.
func prepareStatus(r *resource.Request, next, prev *volume) {
	next.Spec = prev.Spec
	if next.Status.Phase == prev.Status.Phase {
		return
	}
	now, before := next.Status.LastPhaseTransitionTime, prev.Status.LastPhaseTransitionTime
	if now == nil || before != nil && now.Equal(before) {
		next.Status.LastPhaseTransitionTime = new(metav1.NewTime(r.Now))
	}
}

func columns() []resource.Column[volume] {
	spec := func(name string) string { return resource.Doc(corev1.PersistentVolumeSpec{}, name) }
	col := func(name, doc string, cell func(*volume) string) resource.Column[volume] {
		return resource.Column[volume]{Name: name, Description: doc, Cell: func(v *volume, _ time.Time) any { return cell(v) }}
	}
	mode := col("VolumeMode", spec("volumeMode"), func(v *volume) string {
		if v.Spec.VolumeMode == nil {
			return "<unset>"
		}
		return string(*v.Spec.VolumeMode)
	})
	mode.Wide = true
	return []resource.Column[volume]{
		resource.NameColumn[volume](),
		col("Capacity", spec("capacity"), func(v *volume) string {
			size := v.Spec.Capacity[corev1.ResourceStorage]
			return size.String()
		}),
		col("Access Modes", spec("accessModes"), func(v *volume) string { return modes(v.Spec.AccessModes) }),
		col("Reclaim Policy", spec("persistentVolumeReclaimPolicy"), func(v *volume) string { return string(v.Spec.PersistentVolumeReclaimPolicy) }),
		col("Status", resource.Doc(corev1.PersistentVolumeStatus{}, "phase"), func(v *volume) string {
			if v.DeletionTimestamp != nil {
				return "Terminating"
			}
			return string(v.Status.Phase)
		}),
		col("Claim", spec("claimRef"), func(v *volume) string {
			if c := v.Spec.ClaimRef; c != nil {
				return c.Namespace + "/" + c.Name
			}
			return ""
		}),
		col("StorageClass", "StorageClass of the pv", func(v *volume) string {
			if class, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
				return class
			}
			return v.Spec.StorageClassName
		}),
		col("VolumeAttributesClass", "VolumeAttributesClass of the pv", func(v *volume) string {
			if v.Spec.VolumeAttributesClassName == nil {
				return "<unset>"
			}
			return *v.Spec.VolumeAttributesClassName
		}),
		col("Reason", resource.Doc(corev1.PersistentVolumeStatus{}, "reason"), func(v *volume) string { return v.Status.Reason }),
		resource.AgeColumn[volume](),
		mode,
	}
}

// modes abbreviates access modes, in a fixed order.
func modes(list []corev1.PersistentVolumeAccessMode) string {
	has := map[corev1.PersistentVolumeAccessMode]bool{}
	for _, m := range list {
		has[m] = true
	}
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		if has[m.mode] {
			out = append(out, m.short)
		}
	}
	return strings.Join(out, ",")
}

// warnings name sources that no longer work.
func warnings(next, _ *volume) (out []string) {
	if _, ok := next.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		out = append(out, "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead")
	}
	if _, ok := next.Annotations["volume.beta.kubernetes.io/mount-options"]; ok {
		out = append(out, "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead")
	}
	s := &next.Spec
	if s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	for _, w := range []struct {
		used bool
		text string
	}{
		{s.CephFS != nil, "spec.cephfs: deprecated in v1.28, non-functional in v1.31+"},
		{s.PhotonPersistentDisk != nil, "spec.photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+"},
		{s.ScaleIO != nil, "spec.scaleIO: deprecated in v1.16, non-functional in v1.22+"},
		{s.StorageOS != nil, "spec.storageOS: deprecated in v1.22, non-functional in v1.25+"},
		{s.Glusterfs != nil, "spec.glusterfs: deprecated in v1.25, non-functional in v1.26+"},
		{s.RBD != nil, "spec.rbd: deprecated in v1.28, non-functional in v1.31+"},
	} {
		if w.used {
			out = append(out, w.text)
		}
	}
	return out
}

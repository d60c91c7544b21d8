// Package volume judges which volume serves which claim.
//
// Job: classes, access modes, sizes, node affinity and the marks by which a
// claim and a volume say that they belong together.
//
// Not its job: writing those marks to the server (controller/volumebinder),
// choosing nodes (scheduler).
//
// Invariants: pure; what it is given is never changed.
package volume

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"
)

// Upstream's marks.
const (
	BindCompleted       = "pv.kubernetes.io/bind-completed"      // on a claim: it was bound once
	BoundByController   = "pv.kubernetes.io/bound-by-controller" // on either: the user had not chosen the other
	SelectedNode        = "volume.kubernetes.io/selected-node"   // on a claim: where its first pod will run
	ProvisionedBy       = "pv.kubernetes.io/provisioned-by"      // on a volume: who made it
	Provisioner         = "volume.kubernetes.io/storage-provisioner"
	BetaProvisioner     = "volume.beta.kubernetes.io/storage-provisioner"
	NoProvisioner       = "kubernetes.io/no-provisioner" // of classes whose volumes an administrator makes
	ClaimProtection     = "kubernetes.io/pvc-protection"
	VolumeProtection    = "kubernetes.io/pv-protection"
	AttrClassProtection = "kubernetes.io/vac-protection"
)

// ClassOf is the storage class a claim asks for, "" for none.
func ClassOf(c *corev1.PersistentVolumeClaim) string {
	if name, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(c.Spec.StorageClassName, "")
}

// ClassOfVolume is the storage class a volume is of, "" for none.
func ClassOfVolume(v *corev1.PersistentVolume) string {
	if name, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return v.Spec.StorageClassName
}

// Delayed says whether claims of a class are bound only when a pod needs them.
func Delayed(class *storagev1.StorageClass) bool {
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// ClaimName is the name of the claim behind one of a pod's volumes.
func ClaimName(p *corev1.Pod, v *corev1.Volume) (name string, ephemeral, ok bool) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName, false, true
	case v.Ephemeral != nil:
		return p.Name + "-" + v.Name, true, true
	}
	return "", false, false
}

// Uses says whether a pod has a volume of the named claim.
func Uses(p *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		name, _, ok := ClaimName(p, &v)
		return ok && name == claim
	})
}

// MadeFor says why a claim is not the one of a pod's ephemeral volume.
func MadeFor(p *corev1.Pod, c *corev1.PersistentVolumeClaim) error {
	if p.Namespace == c.Namespace && metav1.IsControlledBy(c, p) {
		return nil
	}
	return fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", c.Namespace, c.Name, p.Namespace, p.Name)
}

// BoundTo says whether a volume names the claim as its own.
func BoundTo(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	r := v.Spec.ClaimRef
	return r != nil && r.Name == c.Name && r.Namespace == c.Namespace && (r.UID == "" || r.UID == c.UID)
}

// Bind returns the volume naming the claim as its own, and whether that is new.
func Bind(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, bool) {
	known := BoundTo(v, c)
	if known && v.Spec.ClaimRef.UID == c.UID {
		return v, false
	}
	v = v.DeepCopy()
	v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion}
	if !known {
		metav1.SetMetaDataAnnotation(&v.ObjectMeta, BoundByController, "yes")
	}
	return v, true
}

// Mode is a volume mode with its default.
func Mode(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	return ptr.Deref(m, corev1.PersistentVolumeFilesystem)
}

// Offers says whether a volume has every access mode that a claim asks for.
func Offers(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	return !slices.ContainsFunc(c.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool { return !slices.Contains(v.Spec.AccessModes, m) })
}

func fits(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	has, wants := v.Spec.Capacity[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage]
	return has.Cmp(wants) >= 0
}

// Satisfies says why a volume that a claim asks for by name cannot serve it.
func Satisfies(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) error {
	switch {
	case v.DeletionTimestamp != nil:
		return errors.New("the volume is being deleted")
	case !fits(v, c):
		return errors.New("requested PV is too small")
	case ClassOfVolume(v) != ClassOf(c):
		return errors.New("storageClassName does not match")
	case ptr.Deref(v.Spec.VolumeAttributesClassName, "") != ptr.Deref(c.Spec.VolumeAttributesClassName, ""):
		return errors.New("volumeAttributesClassName does not match")
	case Mode(v.Spec.VolumeMode) != Mode(c.Spec.VolumeMode):
		return errors.New("incompatible volumeMode")
	case !Offers(v, c):
		return errors.New("incompatible accessMode")
	}
	return nil
}

// Reachable says whether a node with these labels can use the volume.
func Reachable(v *corev1.PersistentVolume, nodeLabels map[string]string) error {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return nil
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: nodeLabels}}
	sel, err := nodeaffinity.NewNodeSelector(v.Spec.NodeAffinity.Required)
	if err != nil {
		return fmt.Errorf("matching NodeSelectorTerms: %w", err)
	}
	if !sel.Match(node) {
		return errors.New("no matching NodeSelectorTerms")
	}
	return nil
}

// Search is where a volume is looked for.
type Search struct {
	Node  map[string]string // labels of the node that must reach it; nil means anywhere
	Taken map[string]bool   // names that are not to be had
	Delay bool              // only volumes reserved for the claim
}

// Find returns the volume that serves a claim best: the one reserved for it,
// else of those free with the fewest access modes the smallest; nil if none does.
func Find(c *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, s Search) *corev1.PersistentVolume {
	var best *corev1.PersistentVolume
	selector := labels.Everything()
	if c.Spec.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(c.Spec.Selector); err != nil {
			return nil
		}
	}
	for _, v := range volumes {
		reserved := BoundTo(v, c)
		switch {
		case s.Taken[v.Name], v.DeletionTimestamp != nil, v.Spec.ClaimRef != nil && !reserved, !fits(v, c),
			Mode(v.Spec.VolumeMode) != Mode(c.Spec.VolumeMode),
			ptr.Deref(v.Spec.VolumeAttributesClassName, "") != ptr.Deref(c.Spec.VolumeAttributesClassName, ""):
			continue
		}
		reachable := s.Node == nil || Reachable(v, s.Node) == nil
		switch {
		case reserved && !reachable:
			return nil
		case reserved:
			return v
		case s.Delay, !reachable, v.Status.Phase != corev1.VolumeAvailable, !selector.Matches(labels.Set(v.Labels)),
			ClassOfVolume(v) != ClassOf(c), !Offers(v, c):
			continue
		}
		if best == nil || closer(v, best) < 0 {
			best = v
		}
	}
	return best
}

func closer(a, b *corev1.PersistentVolume) int {
	x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
	return cmp.Or(cmp.Compare(len(a.Spec.AccessModes), len(b.Spec.AccessModes)), x.Cmp(y), cmp.Compare(a.Name, b.Name))
}

// pluginCSI precedes the driver's name in what a volume is called on nodes.
const pluginCSI = "kubernetes.io/csi/"

// UniqueName is what a driver's volume is called in nodes' statuses.
func UniqueName(driver, handle string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName(pluginCSI + driver + "^" + handle)
}

// AttachmentName is the name of the VolumeAttachment of a volume on a node.
func AttachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// AttachmentOf is AttachmentName of a volume by its unique name; ok is false
// for one that no driver provides.
func AttachmentOf(name corev1.UniqueVolumeName, node string) (attachment string, ok bool) {
	rest, ok := strings.CutPrefix(string(name), pluginCSI)
	driver, handle, found := strings.Cut(rest, "^")
	if !ok || !found {
		return "", false
	}
	return AttachmentName(handle, driver, node), true
}

// Shared says whether several nodes may have a volume attached at once.
func Shared(v *corev1.PersistentVolume) bool {
	m := v.Spec.AccessModes
	return len(m) == 0 || slices.Contains(m, corev1.ReadWriteMany) || slices.Contains(m, corev1.ReadOnlyMany)
}

// Package persistentvolumeclaim defines the PersistentVolumeClaim kind.
//
// Job: defaults, rules and columns of core/v1 PersistentVolumeClaim.
//
// Not its job: binding, provisioning, expanding.
//
// Invariants: once made, a claim may be bound, grow, and change its attributes
// class; the two spellings of its data source agree.
package persistentvolumeclaim

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

type claim = corev1.PersistentVolumeClaim

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[claim]{
		Version: "v1", Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims",
		Short: []string{"pvc"},
		Default: func(c *claim) {
			if c.Status.Phase == "" {
				c.Status.Phase = corev1.ClaimPending
			}
			podspec.DefaultClaim(&c.Spec)
		},
		Prepare: prepare, Validate: validate, Warnings: warnings,
		Subs: []resource.Sub[claim]{
			resource.StatusSub(func(next, prev *claim) { next.Spec = prev.Spec }, validateStatus),
		},
		Columns:       columns(),
		Selectable:    map[string]func(*claim) string{"name": func(c *claim) string { return c.Name }},
		Unconditional: true,
		ResetFields:   []string{"status"},
	})
}

func prepare(_ *resource.Request, next, prev *claim) {
	if prev != nil {
		next.Status = prev.Status
	} else {
		next.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
		dropForeign(&next.Spec)
	}
	agree(&next.Spec)
}

// dropForeign forgets a plain data source that is neither a claim nor a
// snapshot: other kinds go by dataSourceRef.
func dropForeign(s *corev1.PersistentVolumeClaimSpec) {
	d := s.DataSource
	if d == nil {
		return
	}
	group := ""
	if d.APIGroup != nil {
		group = *d.APIGroup
	}
	if d.Kind == "PersistentVolumeClaim" && group == "" || d.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io" {
		return
	}
	if s.DataSourceRef == nil {
		s.DataSource = nil
	}
}

// agree copies one spelling of the data source to the other.
func agree(s *corev1.PersistentVolumeClaimSpec) {
	switch {
	case s.DataSource != nil && s.DataSourceRef == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.DataSource.APIGroup, Kind: s.DataSource.Kind, Name: s.DataSource.Name}
	case s.DataSource == nil && s.DataSourceRef != nil && (s.DataSourceRef.Namespace == nil || *s.DataSourceRef.Namespace == ""):
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: s.DataSourceRef.APIGroup, Kind: s.DataSourceRef.Kind, Name: s.DataSourceRef.Name}
	}
}

func columns() []resource.Column[claim] {
	col := func(name, doc string, cell func(*claim) string) resource.Column[claim] {
		return resource.Column[claim]{Name: name, Description: doc, Cell: func(c *claim, _ time.Time) any { return cell(c) }}
	}
	status := func(name string) string { return resource.Doc(corev1.PersistentVolumeClaimStatus{}, name) }
	spec := func(name string) string { return resource.Doc(corev1.PersistentVolumeClaimSpec{}, name) }
	mode := col("VolumeMode", spec("volumeMode"), func(c *claim) string {
		if c.Spec.VolumeMode == nil {
			return "<unset>"
		}
		return string(*c.Spec.VolumeMode)
	})
	mode.Wide = true
	return []resource.Column[claim]{
		resource.NameColumn[claim](),
		col("Status", status("phase"), func(c *claim) string {
			if c.DeletionTimestamp != nil {
				return "Terminating"
			}
			return string(c.Status.Phase)
		}),
		col("Volume", spec("volumeName"), func(c *claim) string { return c.Spec.VolumeName }),
		col("Capacity", status("capacity"), func(c *claim) string {
			if c.Spec.VolumeName == "" {
				return ""
			}
			size := c.Status.Capacity[corev1.ResourceStorage]
			return size.String()
		}),
		col("Access Modes", status("accessModes"), func(c *claim) string {
			if c.Spec.VolumeName == "" {
				return ""
			}
			return modes(c.Status.AccessModes)
		}),
		col("StorageClass", "StorageClass of the pvc", func(c *claim) string {
			if class, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
				return class
			}
			if c.Spec.StorageClassName != nil {
				return *c.Spec.StorageClassName
			}
			return ""
		}),
		col("VolumeAttributesClass", "VolumeAttributesClass of the pvc", func(c *claim) string {
			if c.Spec.VolumeAttributesClassName == nil {
				return "<unset>"
			}
			return *c.Spec.VolumeAttributesClassName
		}),
		resource.AgeColumn[claim](),
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

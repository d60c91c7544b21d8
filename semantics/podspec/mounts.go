package podspec

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (j *judge) mounts(c *corev1.Container, at *field.Path) {
	points := sets.New[string]()
	for i := range c.VolumeMounts {
		m, at2 := &c.VolumeMounts[i], at.Index(i)
		_, known := j.volumes[m.Name]
		if m.Name == "" {
			j.required(at2.Child("name"))
		}
		if !known {
			j.add(field.NotFound(at2.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			j.required(at2.Child("mountPath"))
		}
		if points.Has(m.MountPath) {
			j.add(field.Invalid(at2.Child("mountPath"), m.MountPath, "must be unique"))
		}
		points.Insert(m.MountPath)
		if slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == m.Name }) {
			j.add(field.Invalid(at2.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.DevicePath == m.MountPath }) {
			j.add(field.Invalid(at2.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
		}
		j.subPath(m, at, at2)
		j.propagation(c, m, at)
	}
}

func (j *judge) subPath(m *corev1.VolumeMount, list, at *field.Path) {
	if m.SubPath != "" {
		j.descending(m.SubPath, list.Child("subPath"))
	}
	if m.SubPathExpr == "" {
		return
	}
	if m.SubPath != "" {
		j.add(field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
	}
	j.descending(m.SubPathExpr, list.Child("subPathExpr"))
}

func (j *judge) propagation(c *corev1.Container, m *corev1.VolumeMount, list *field.Path) {
	if p := m.MountPropagation; p != nil {
		at := list.Child("mountPropagation")
		oneOf(j, at, *p, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
		privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
		if *p == corev1.MountPropagationBidirectional && !privileged {
			j.add(field.Forbidden(at, "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if m.RecursiveReadOnly == nil {
		return
	}
	at := list.Child("recursiveReadOnly")
	switch *m.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !m.ReadOnly {
			j.add(field.Forbidden(at, "may only be specified when readOnly is true"))
		}
		if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			j.add(field.Forbidden(at, "may only be specified when mountPropagation is None or not specified"))
		}
	default:
		oneOf(j, at, *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	}
}

func (j *judge) devices(c *corev1.Container, list *field.Path) {
	paths, names := sets.New[string](), sets.New[string]()
	for i, d := range c.VolumeDevices {
		at := list.Index(i)
		source, known := j.volumes[d.Name]
		if d.Name == "" {
			j.required(at.Child("name"))
		}
		if names.Has(d.Name) {
			j.add(field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		switch {
		case !known:
			j.add(field.NotFound(at.Child("name"), d.Name))
		case source.PersistentVolumeClaim == nil && source.Ephemeral == nil:
			j.add(field.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		if d.DevicePath == "" {
			j.required(at.Child("devicePath"))
		}
		if paths.Has(d.DevicePath) {
			j.add(field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if hasBacksteps(d.DevicePath) {
			j.add(field.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		} else {
			paths.Insert(d.DevicePath)
		}
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == d.Name }) {
			j.add(field.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == d.DevicePath }) {
			j.add(field.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
		}
		if d.Name != "" {
			names.Insert(d.Name)
		}
	}
}

func hasBacksteps(p string) bool { return slices.Contains(strings.Split(p, "/"), "..") }

func (j *judge) noBacksteps(p string, at *field.Path) {
	if hasBacksteps(p) {
		j.add(field.Invalid(at, p, "must not contain '..'"))
	}
}

// descending demands a relative path that never climbs.
func (j *judge) descending(p string, at *field.Path) {
	if path.IsAbs(p) {
		j.add(field.Invalid(at, p, "must be a relative path"))
	}
	j.noBacksteps(p, at)
}

// localPath is a descending path with no name that the kubelet keeps to itself.
func (j *judge) localPath(p string, at *field.Path) {
	j.descending(p, at)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		j.add(field.Invalid(at, p, "must not start with '..'"))
	}
}

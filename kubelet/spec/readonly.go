package spec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// RecursiveReadOnly says whether a mount and all mounts below it are to be
// read only; supported is whether the runtime can.
func RecursiveReadOnly(m *corev1.VolumeMount, supported bool) (bool, error) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	switch mode := *m.RecursiveReadOnly; {
	case !m.ReadOnly:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", m.Name)
	case m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q", m.Name, *m.MountPropagation)
	case mode == corev1.RecursiveReadOnlyIfPossible:
		return supported, nil
	case mode == corev1.RecursiveReadOnlyEnabled && !supported:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
	case mode == corev1.RecursiveReadOnlyEnabled:
		return true, nil
	default:
		return false, fmt.Errorf("unknown recursive read-only mode %q", mode)
	}
}

package tainteviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tolerates says whether t tolerates a NoExecute taint.
func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	}
	return false
}

// executing returns the taints that evict.
func executing(n *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectNoExecute })
}

// patience says how long the pod may stay under the taints; forever when
// nothing limits it.
func patience(p *corev1.Pod, taints []corev1.Taint) (d time.Duration, forever bool) {
	forever = true
	for i := range taints {
		at := slices.IndexFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool { return tolerates(&t, &taints[i]) })
		if at < 0 {
			return 0, false
		}
		if s := p.Spec.Tolerations[at].TolerationSeconds; s != nil {
			if limit := max(time.Duration(*s)*time.Second, 0); forever || limit < d {
				d, forever = limit, false
			}
		}
	}
	return d, forever
}

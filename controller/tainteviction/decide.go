package tainteviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/semantics/taint"
)

// executing returns the taints that evict.
func executing(n *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectNoExecute })
}

// patience says how long the pod may stay under the taints; forever when
// nothing limits it.
func patience(p *corev1.Pod, taints []corev1.Taint) (d time.Duration, forever bool) {
	forever = true
	for i := range taints {
		t := taint.Covering(p.Spec.Tolerations, &taints[i])
		if t == nil {
			return 0, false
		}
		if s := t.TolerationSeconds; s != nil {
			if limit := max(time.Duration(*s)*time.Second, 0); forever || limit < d {
				d, forever = limit, false
			}
		}
	}
	return d, forever
}

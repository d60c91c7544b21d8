package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// RestartRule returns what the container's own rules want done about its end
// with code; "" when none speaks of it.
func RestartRule(c *corev1.Container, code int32) corev1.ContainerRestartRuleAction {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action
		}
	}
	return ""
}

// Restarts says whether a container that ended with code shall run again: by its
// rules, its own policy, or its pod's.
func Restarts(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	if RestartRule(c, code) != "" {
		return true
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

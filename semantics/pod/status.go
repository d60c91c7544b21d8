package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Mirror marks pods that show a node's own static pod.
const Mirror = corev1.MirrorPodAnnotationKey

// Condition finds a condition by type; nil when the pod has none.
func Condition(status *corev1.PodStatus, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return nil
}

// SetCondition adds or replaces a condition and says whether anything changed.
// The time of transition moves only with the condition's status.
func SetCondition(status *corev1.PodStatus, c corev1.PodCondition, now time.Time) bool {
	c.LastTransitionTime = metav1.NewTime(now)
	old := Condition(status, c.Type)
	if old == nil {
		status.Conditions = append(status.Conditions, c)
		return true
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	changed := old.Status != c.Status || old.Reason != c.Reason || old.Message != c.Message ||
		old.ObservedGeneration != c.ObservedGeneration || !old.LastProbeTime.Equal(&c.LastProbeTime)
	*old = c
	return changed
}

// Ready says whether the pod may get traffic.
func Ready(pod *corev1.Pod) bool {
	c := Condition(&pod.Status, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available says whether the pod has been ready for at least minReady.
func Available(pod *corev1.Pod, minReady time.Duration, now time.Time) bool {
	c := Condition(&pod.Status, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false
	}
	return minReady <= 0 || (!c.LastTransitionTime.IsZero() && !c.LastTransitionTime.Add(minReady).After(now))
}

// Finished says whether the pod has run to its end.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Active says whether the pod still counts as one of its owner's replicas.
func Active(pod *corev1.Pod) bool { return !Finished(pod) && pod.DeletionTimestamp == nil }

// IsMirror says whether the pod shows a node's own static pod.
func IsMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[Mirror]
	return ok
}

// Sidecar says whether an init container runs as long as the pod does.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// ContainerStatus finds the status of a container by name among statuses.
func ContainerStatus(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

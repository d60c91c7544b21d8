package kubelet

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// admit refuses a new pod that the node cannot hold. A pod that was let in, or
// runs already, stays.
func (k *Kubelet) admit(w *worker, pod *corev1.Pod) bool {
	w.mu.Lock()
	done := w.admitted
	w.mu.Unlock()
	if done || !k.cfg.EnforceAdmission || w.static || len(pod.Status.ContainerStatuses) > 0 {
		w.mu.Lock()
		w.admitted = true
		w.mu.Unlock()
		return true
	}
	others := k.others(w)
	if reason, message := Fits(pod, others, k.node.Allocatable); reason != "" {
		message = "Pod was rejected: " + message
		k.containerEvent(pod, "", corev1.EventTypeWarning, reason, message)
		w.fail(reason, message, 0)
		return false
	}
	w.mu.Lock()
	w.admitted = true
	w.mu.Unlock()
	return true
}

// Fits says why pod cannot run beside others on a node with allocatable
// resources; reason is "" when it can.
func Fits(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) (reason, message string) {
	used := corev1.ResourceList{}
	for _, o := range others {
		for name, q := range semantics.Requests(o) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	if pods, ok := allocatable[corev1.ResourcePods]; ok && int64(len(others))+1 > pods.Value() {
		return "OutOfpods", fmt.Sprintf("Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), pods.Value())
	}
	want := semantics.Requests(pod)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		q, ok := want[name]
		if !ok || q.IsZero() {
			continue
		}
		all, have := allocatable[name], used[name]
		a, b, c := q.Value(), have.Value(), all.Value()
		if name == corev1.ResourceCPU {
			a, b, c = q.MilliValue(), have.MilliValue(), all.MilliValue()
		}
		if a+b > c {
			return "OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, a, b, c)
		}
	}
	return "", ""
}

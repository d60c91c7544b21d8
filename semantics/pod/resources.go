package pod

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
)

// Requests is what the pod takes from its node: the most that its containers,
// init containers and sidecars ask at any one time, and its overhead.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	return helpers.PodRequests(pod, helpers.PodResourcesOptions{})
}

// Limits is the most the pod may use of what is limited.
func Limits(pod *corev1.Pod) corev1.ResourceList {
	return helpers.PodLimits(pod, helpers.PodResourcesOptions{})
}

// Reserved is Requests with what a resize under way has been granted already,
// which is what scheduling and quota must reckon with.
func Reserved(pod *corev1.Pod) corev1.ResourceList {
	return helpers.PodRequests(pod, helpers.PodResourcesOptions{UseStatusResources: true})
}

// QuotaUsage is what the pod counts towards a ResourceQuota. Finished pods, and
// deleted ones whose grace has run out, count only as objects.
func QuotaUsage(pod *corev1.Pod, now time.Time) corev1.ResourceList {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	usage := corev1.ResourceList{"count/pods": one}
	if !CountsForQuota(pod, now) {
		return usage
	}
	usage[corev1.ResourcePods] = one
	requests, limits := Reserved(pod), Limits(pod)
	for name, q := range requests {
		switch {
		case name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage:
			usage[name] = q
			usage["requests."+name] = q
		case strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			usage[name] = q
			usage["requests."+name] = q
		case strings.Contains(string(name), "/"):
			usage["requests."+name] = q
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := limits[name]; ok {
			usage["limits."+name] = q
		}
	}
	return usage
}

// CountsForQuota says whether a pod still uses compute resources of a quota.
func CountsForQuota(pod *corev1.Pod, now time.Time) bool {
	if Finished(pod) {
		return false
	}
	if pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil {
		grace := time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
		if now.After(pod.DeletionTimestamp.Add(grace)) {
			return false
		}
	}
	return true
}

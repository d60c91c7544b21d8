package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"
)

// DefaultPod fills in what only a pod gets, not a template, and then the rest.
func DefaultPod(pod *corev1.Pod) {
	spec := &pod.Spec
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			requestsFromLimits(&list[i].Resources)
		}
	}
	if spec.Resources != nil {
		defaultPodResources(pod)
	}
	if spec.EnableServiceLinks == nil {
		spec.EnableServiceLinks = ptr.To(corev1.DefaultEnableServiceLinks)
	}
	if spec.HostNetwork {
		defaultHostPorts(spec.Containers)
		defaultHostPorts(spec.InitContainers)
	}
	Default(spec)
}

func requestsFromLimits(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for name, q := range r.Limits {
		if _, ok := r.Requests[name]; !ok {
			r.Requests[name] = q.DeepCopy()
		}
	}
}

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// defaultPodResources completes resources asked for the pod as a whole from
// those of its containers.
func defaultPodResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if len(r.Limits) == 0 && len(r.Requests) == 0 {
		return
	}
	limits := helpers.AggregateContainerLimits(pod, helpers.PodResourcesOptions{})
	for name, q := range limits {
		_, limited := r.Limits[name]
		_, requested := r.Requests[name]
		if !limited && !requested && isHugePage(name) {
			if r.Limits == nil {
				r.Limits = corev1.ResourceList{}
			}
			r.Limits[name] = q.DeepCopy()
		}
	}
	if len(r.Limits) == 0 {
		return
	}
	requests := r.Requests
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	for name, q := range helpers.AggregateContainerRequests(pod, helpers.PodResourcesOptions{}) {
		if _, ok := requests[name]; !ok && helpers.IsSupportedPodLevelResource(name) && !isHugePage(name) {
			requests[name] = q.DeepCopy()
		}
	}
	for name, q := range r.Limits {
		if _, ok := requests[name]; !ok && helpers.IsSupportedPodLevelResource(name) {
			requests[name] = q.DeepCopy()
		}
	}
	if len(requests) > 0 {
		r.Requests = requests
	}
}

// Package quota judges what objects count towards ResourceQuotas.
//
// Job: the amounts an object uses, and whether a quota's scopes take it in.
//
// Not its job: refusing (admission), adding up (the resourcequota loop).
package quota

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	podsem "github.com/sampan-dev/sampan/semantics/pod"
)

// Usage is what an object counts towards quotas at a moment.
func Usage(gr schema.GroupResource, obj api.Object, now time.Time) corev1.ResourceList {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	out := corev1.ResourceList{}
	if gr.Group == "" {
		out[corev1.ResourceName("count/"+gr.Resource)] = one
	} else {
		out[corev1.ResourceName("count/"+gr.String())] = one
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		return podsem.QuotaUsage(o, now)
	case *corev1.Service:
		serviceUsage(o, out)
	case *corev1.PersistentVolumeClaim:
		claimUsage(o, out)
	case *resourcev1.ResourceClaim:
		deviceUsage(o, out)
	case *corev1.ConfigMap, *corev1.Secret, *corev1.ReplicationController, *corev1.ResourceQuota:
		out[corev1.ResourceName(gr.Resource)] = one
	}
	return out
}

func serviceUsage(s *corev1.Service, out corev1.ResourceList) {
	number := func(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }
	out[corev1.ResourceServices] = number(1)
	ports := 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		out[corev1.ResourceServicesLoadBalancers] = number(1)
		if s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts {
			ports = len(s.Spec.Ports)
		} else {
			for _, p := range s.Spec.Ports {
				if p.NodePort != 0 {
					ports++
				}
			}
		}
	}
	out[corev1.ResourceServicesNodePorts] = number(ports)
	if _, ok := out[corev1.ResourceServicesLoadBalancers]; !ok {
		out[corev1.ResourceServicesLoadBalancers] = number(0)
	}
}

func claimUsage(c *corev1.PersistentVolumeClaim, out corev1.ResourceList) {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	out[corev1.ResourcePersistentVolumeClaims] = one
	class := c.Annotations[corev1.BetaStorageClassAnnotation]
	if class == "" && c.Spec.StorageClassName != nil {
		class = *c.Spec.StorageClassName
	}
	size, sized := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if got := c.Status.AllocatedResources[corev1.ResourceStorage]; sized && got.Cmp(size) > 0 {
		size = got // a smaller wish after a larger one that was granted
	}
	if sized {
		size = size.DeepCopy()
		size.RoundUp(0)
		out[corev1.ResourceRequestsStorage] = size
	}
	if class == "" {
		return
	}
	prefix := class + ".storageclass.storage.k8s.io/"
	out[corev1.ResourceName(prefix+"persistentvolumeclaims")] = one
	if sized {
		out[corev1.ResourceName(prefix+"requests.storage")] = size
	}
}

// deviceUsage counts the devices a claim may get, by class; of alternatives the
// most that one of them may take.
func deviceUsage(c *resourcev1.ResourceClaim, out corev1.ResourceList) {
	most := func(mode resourcev1.DeviceAllocationMode, count int64) int64 {
		switch mode {
		case resourcev1.DeviceAllocationModeExactCount:
			return count
		case resourcev1.DeviceAllocationModeAll:
			return resourcev1.AllocationResultsMaxSize
		}
		return 0
	}
	for _, r := range c.Spec.Devices.Requests {
		worst := map[string]int64{}
		if e := r.Exactly; e != nil {
			worst[e.DeviceClassName] = most(e.AllocationMode, e.Count)
		}
		for _, s := range r.FirstAvailable {
			worst[s.DeviceClassName] = max(worst[s.DeviceClassName], most(s.AllocationMode, s.Count))
		}
		for class, n := range worst {
			name := corev1.ResourceName(class + DeviceClassSuffix)
			sum := out[name]
			sum.Add(*resource.NewQuantity(n, resource.DecimalSI))
			out[name] = sum
		}
	}
}

// DeviceClassSuffix ends the names of amounts of devices.
const DeviceClassSuffix = ".deviceclass.resource.k8s.io/devices"

// Counts says whether the quota counts obj at all.
func Counts(q *corev1.ResourceQuota, obj api.Object) bool {
	scopes := Scopes(q)
	return len(Matching(obj, scopes)) == len(scopes)
}

// Scopes are a quota's scopes in one form.
func Scopes(q *corev1.ResourceQuota) []corev1.ScopedResourceSelectorRequirement {
	var out []corev1.ScopedResourceSelectorRequirement
	for _, s := range q.Spec.Scopes {
		out = append(out, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		out = append(out, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return out
}

// Matching are those of the scopes that an object is in.
func Matching(obj api.Object, scopes []corev1.ScopedResourceSelectorRequirement) []corev1.ScopedResourceSelectorRequirement {
	var out []corev1.ScopedResourceSelectorRequirement
	for _, r := range scopes {
		in := false
		switch o := obj.(type) {
		case *corev1.Pod:
			in = inScope(o, r)
		case *corev1.PersistentVolumeClaim:
			in = r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass &&
				slices.ContainsFunc(attributesClasses(o), func(class string) bool { return named(class, r) })
		}
		if in {
			out = append(out, r)
		}
	}
	return out
}

// attributesClasses are the classes that a claim has, had or asks for; "" alone
// when there is none.
func attributesClasses(c *corev1.PersistentVolumeClaim) []string {
	var out []string
	for _, p := range []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName} {
		if p != nil && *p != "" {
			out = append(out, *p)
		}
	}
	if m := c.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		out = append(out, m.TargetVolumeAttributesClassName)
	}
	if len(out) == 0 {
		return []string{""}
	}
	return out
}

func inScope(pod *corev1.Pod, r corev1.ScopedResourceSelectorRequirement) bool {
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return pod.Spec.ActiveDeadlineSeconds != nil
	case corev1.ResourceQuotaScopeNotTerminating:
		return pod.Spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return podsem.QoS(pod) == corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return podsem.QoS(pod) != corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		return named(pod.Spec.PriorityClassName, r)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(pod.Spec.Affinity)
	}
	return false
}

func named(name string, r corev1.ScopedResourceSelectorRequirement) bool {
	switch r.Operator {
	case corev1.ScopeSelectorOpExists:
		return name != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return name == ""
	case corev1.ScopeSelectorOpIn:
		return slices.Contains(r.Values, name)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(r.Values, name)
	}
	return false
}

func crossesNamespaces(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	if p := a.PodAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		for _, w := range p.PreferredDuringSchedulingIgnoredDuringExecution {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	if p := a.PodAntiAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		for _, w := range p.PreferredDuringSchedulingIgnoredDuringExecution {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}

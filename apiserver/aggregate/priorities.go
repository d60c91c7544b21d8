package aggregate

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// groupPriorities are those of the built-in groups, upstream's.
func groupPriorities() map[string]int32 {
	return map[string]int32{
		"": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
		"autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
		"rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700,
		"admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500, "node.k8s.io": 16300,
		"discovery.k8s.io": 16200, "resource.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100,
		"internal.apiserver.k8s.io": 16000, "storagemigration.k8s.io": 15800,
	}
}

// versionPriorities are those that differ from what a version's name says.
func versionPriorities() map[string]int32 {
	return map[string]int32{
		"v1.": 1, "v2.autoscaling": 30, "v1.flowcontrol.apiserver.k8s.io": 21, "v1.resource.k8s.io": 21,
		"v1beta2.resource.k8s.io": 15, "v1beta1.admissionregistration.k8s.io": 12, "v1alpha1.admissionregistration.k8s.io": 9,
		"v1beta1.coordination.k8s.io": 13, "v1alpha2.coordination.k8s.io": 12, "v1beta1.events.k8s.io": 5,
		"v1alpha1.internal.apiserver.k8s.io": 9,
	}
}

const (
	customGroupPriority   = 1000
	customVersionPriority = 100
	unknownGroupPriority  = 15700 // below every built-in group
)

// The label by which automatic APIServices are known, and its values.
const (
	managedLabel = "kube-aggregator.kubernetes.io/automanaged"
	onStart      = "onstart"
	always       = "true"
)

// nameOf is the name of the APIService of a group and version.
func nameOf(s Served) string { return s.Version + "." + s.Group }

// registration is the APIService of what is served here.
func registration(s Served) *apiregistrationv1.APIService {
	out := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: nameOf(s), Labels: map[string]string{managedLabel: onStart}},
		Spec:       apiregistrationv1.APIServiceSpec{Group: s.Group, Version: s.Version},
	}
	if s.Custom {
		out.Labels[managedLabel] = always
		out.Spec.GroupPriorityMinimum, out.Spec.VersionPriority = customGroupPriority, customVersionPriority
		return out
	}
	p, ok := groupPriorities()[s.Group]
	if !ok {
		p = unknownGroupPriority
	}
	out.Spec.GroupPriorityMinimum = p
	if p, ok = versionPriorities()[out.Name]; !ok {
		p = byStability(s.Version)
	}
	out.Spec.VersionPriority = p
	return out
}

func byStability(version string) int32 {
	switch {
	case strings.Contains(version, "alpha"):
		return 1
	case strings.Contains(version, "beta"):
		return 9
	}
	return 15
}

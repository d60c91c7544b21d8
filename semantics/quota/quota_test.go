package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
)

func written(list corev1.ResourceList) string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(list)) {
		q := list[n]
		out = append(out, fmt.Sprintf("%s=%s", n, q.String()))
	}
	return strings.Join(out, " ")
}

func TestUsage(t *testing.T) {
	class, off := "fast", false
	exactly := func(class string, mode resourcev1.DeviceAllocationMode, n int64) resourcev1.DeviceRequest {
		return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: mode, Count: n}}
	}
	for _, c := range []struct {
		gr   string
		obj  api.Object
		want string
	}{
		{"secrets", &corev1.Secret{}, "count/secrets=1 secrets=1"},
		{"widgets.example.com", &unstructured.Unstructured{}, "count/widgets.example.com=1"},
		{"services", &corev1.Service{Spec: corev1.ServiceSpec{Type: "ClusterIP", Ports: make([]corev1.ServicePort, 2)}}, "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0"},
		{"services", &corev1.Service{Spec: corev1.ServiceSpec{Type: "NodePort", Ports: make([]corev1.ServicePort, 2)}}, "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2"},
		{"services", &corev1.Service{Spec: corev1.ServiceSpec{Type: "LoadBalancer", Ports: make([]corev1.ServicePort, 2)}}, "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"},
		{"services", &corev1.Service{Spec: corev1.ServiceSpec{Type: "LoadBalancer", AllocateLoadBalancerNodePorts: &off, Ports: make([]corev1.ServicePort, 2)}}, "count/services=1 services=1 services.loadbalancers=1 services.nodeports=0"},
		{"persistentvolumeclaims", &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}},
			"count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"},
		{"resourceclaims.resource.k8s.io", &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			exactly("gpu", "ExactCount", 2), exactly("gpu", "All", 0),
			{FirstAvailable: []resourcev1.DeviceSubRequest{{DeviceClassName: "big", AllocationMode: "ExactCount", Count: 1}, {DeviceClassName: "big", AllocationMode: "ExactCount", Count: 4}, {DeviceClassName: "small", AllocationMode: "ExactCount", Count: 3}}},
		}}}}, "big.deviceclass.resource.k8s.io/devices=4 count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=34 small.deviceclass.resource.k8s.io/devices=3"},
	} {
		if got := written(Usage(schema.ParseGroupResource(c.gr), c.obj, time.Unix(0, 0))); got != c.want {
			t.Errorf("%s: got %s\nwant %s", c.gr, got, c.want)
		}
	}
}

func TestScopes(t *testing.T) {
	deadline := int64(5)
	plain, mortal, rich := &corev1.Pod{}, &corev1.Pod{}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "rich"}}
	mortal.Spec.ActiveDeadlineSeconds = &deadline
	rich.Spec.PriorityClassName = "high"
	rich.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}
	rich.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{Namespaces: []string{"x"}}}}}
	for scope, want := range map[corev1.ResourceQuotaScope][4]bool{ // plain, mortal, rich, a secret
		corev1.ResourceQuotaScopeTerminating:               {false, true, false, false},
		corev1.ResourceQuotaScopeNotTerminating:            {true, false, true, false},
		corev1.ResourceQuotaScopeBestEffort:                {true, true, false, false},
		corev1.ResourceQuotaScopeNotBestEffort:             {false, false, true, false},
		corev1.ResourceQuotaScopePriorityClass:             {false, false, true, false},
		corev1.ResourceQuotaScopeCrossNamespacePodAffinity: {false, false, true, false},
	} {
		q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{scope}}}
		for i, obj := range []api.Object{plain, mortal, rich, &corev1.Secret{}} {
			if got := Counts(q, obj); got != want[i] {
				t.Errorf("%s of object %d: %v", scope, i, got)
			}
		}
	}
	q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
		{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}},
	}}}}
	if !Counts(q, rich) || Counts(q, plain) {
		t.Error("scope selector")
	}
}

package pod

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func res(requests, limits map[corev1.ResourceName]string) corev1.ResourceRequirements {
	list := func(m map[corev1.ResourceName]string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for k, v := range m {
			out[k] = resource.MustParse(v)
		}
		return out
	}
	return corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}
}

type amounts = map[corev1.ResourceName]string

func TestQoS(t *testing.T) {
	both := amounts{"cpu": "1", "memory": "1Gi"}
	for name, c := range map[string]struct {
		containers []corev1.ResourceRequirements
		want       corev1.PodQOSClass
	}{
		"nothing":          {[]corev1.ResourceRequirements{{}}, corev1.PodQOSBestEffort},
		"zero":             {[]corev1.ResourceRequirements{res(amounts{"cpu": "0"}, nil)}, corev1.PodQOSBestEffort},
		"only storage":     {[]corev1.ResourceRequirements{res(amounts{"ephemeral-storage": "1Gi"}, nil)}, corev1.PodQOSBestEffort},
		"some":             {[]corev1.ResourceRequirements{res(amounts{"cpu": "1"}, nil)}, corev1.PodQOSBurstable},
		"all equal":        {[]corev1.ResourceRequirements{res(both, both)}, corev1.PodQOSGuaranteed},
		"one without":      {[]corev1.ResourceRequirements{res(both, both), {}}, corev1.PodQOSBurstable},
		"limits above":     {[]corev1.ResourceRequirements{res(both, amounts{"cpu": "2", "memory": "1Gi"})}, corev1.PodQOSBurstable},
		"no memory limits": {[]corev1.ResourceRequirements{res(amounts{"cpu": "1"}, amounts{"cpu": "1"})}, corev1.PodQOSBurstable},
	} {
		p := &corev1.Pod{}
		for _, r := range c.containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: r})
		}
		if got := QoS(p); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestSetCondition(t *testing.T) {
	var s corev1.PodStatus
	first, later := time.Unix(100, 0), time.Unix(200, 0)
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	if !SetCondition(&s, ready, first) || SetCondition(&s, ready, later) {
		t.Error("the first set must change something, the second nothing")
	}
	if got := Condition(&s, corev1.PodReady).LastTransitionTime.Time; !got.Equal(first) {
		t.Errorf("transition at %s though nothing turned", got)
	}
	ready.Status = corev1.ConditionFalse
	if !SetCondition(&s, ready, later) || !Condition(&s, corev1.PodReady).LastTransitionTime.Time.Equal(later) {
		t.Error("a turn must be noted")
	}
}

func TestAvailable(t *testing.T) {
	p := &corev1.Pod{}
	SetCondition(&p.Status, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}, time.Unix(100, 0))
	for after, want := range map[int64]bool{105: false, 110: true} {
		if got := Available(p, 10*time.Second, time.Unix(after, 0)); got != want {
			t.Errorf("at %d: %v", after, got)
		}
	}
}

func TestQuotaUsage(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &corev1.Pod{Spec: corev1.PodSpec{
		Containers:     []corev1.Container{{Resources: res(amounts{"cpu": "1", "x.io/gpu": "2"}, amounts{"memory": "1Gi"})}},
		InitContainers: []corev1.Container{{Resources: res(amounts{"cpu": "3"}, nil)}},
	}}
	u := QuotaUsage(p, now)
	expected := amounts{"pods": "1", "count/pods": "1", "cpu": "3", "requests.cpu": "3", "limits.memory": "1Gi", "requests.x.io/gpu": "2"}
	for name, want := range expected {
		if q := u[name]; q.Cmp(resource.MustParse(want)) != 0 {
			t.Errorf("%s: %s, want %s", name, q.String(), want)
		}
	}
	p.Status.Phase = corev1.PodSucceeded
	if u := QuotaUsage(p, now); len(u) != 1 {
		t.Errorf("a finished pod uses %v", u)
	}
	p.Status.Phase = corev1.PodRunning
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now.Add(-time.Minute)}, ptr.To[int64](30)
	if CountsForQuota(p, now) {
		t.Error("a pod past its grace still counts")
	}
}

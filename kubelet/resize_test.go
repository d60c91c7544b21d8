package kubelet

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// asking makes a pod's container ask for cpu and memory, as a resize does.
func asking(cpu, memory string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		list := corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
	}
}

// ask resizes a pod of the bench.
func (b *bench) ask(name, cpu, memory string) {
	p := b.pod(name).DeepCopy()
	p.Generation++
	asking(cpu, memory)(p)
	b.api.Put(p)
}

func condition(p *corev1.Pod, t corev1.PodConditionType) string {
	if c := semantics.Condition(&p.Status, t); c != nil {
		return string(c.Status) + " " + c.Reason
	}
	return ""
}

func TestAResizeIsGrantedDeferredOrImpossible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, apiPod("p", asking("1", "1Gi")), apiPod("q", asking("2", "1Gi"), func(p *corev1.Pod) { p.UID = "uid-2" }))
		after(3 * time.Second)
		id := b.rt.Find("main").Status.Id

		b.ask("p", "2", "2Gi")
		after(3 * time.Second)
		p := b.pod("p")
		got := p.Status.ContainerStatuses[0]
		if got.Resources.Limits.Cpu().String() != "2" || got.AllocatedResources.Memory().String() != "2Gi" || got.RestartCount != 0 {
			t.Fatalf("after the resize: %+v", got)
		}
		if c := condition(p, corev1.PodResizeInProgress) + condition(p, corev1.PodResizePending); c != "" {
			t.Errorf("conditions %q are left", c)
		}

		b.ask("p", "3", "2Gi") // q has the rest
		after(3 * time.Second)
		if c := condition(b.pod("p"), corev1.PodResizePending); c != "True Deferred" {
			t.Errorf("the second resize is %q, want it deferred", c)
		}
		if got := b.pod("p").Status.ContainerStatuses[0].AllocatedResources.Cpu().String(); got != "2" {
			t.Errorf("%s CPUs are granted, want 2 as before", got)
		}
		b.stop()
		b.start() // the promise outlives the agent
		after(3 * time.Second)
		if got := b.pod("p").Status.ContainerStatuses[0].AllocatedResources.Cpu().String(); got != "2" {
			t.Errorf("%s CPUs are granted after a restart of the agent, want 2", got)
		}
		b.delete("q", 1)
		after(8 * time.Second)
		if got := b.pod("p").Status.ContainerStatuses[0].AllocatedResources.Cpu().String(); got != "3" {
			t.Errorf("%s CPUs are granted after the other pod went, want 3", got)
		}

		b.ask("p", "40", "2Gi")
		after(3 * time.Second)
		c := semantics.Condition(&b.pod("p").Status, corev1.PodResizePending)
		if c == nil || c.Reason != corev1.PodReasonInfeasible || !strings.Contains(c.Message, "Node didn't have enough capacity: cpu, requested: 40000, capacity: 4000") {
			t.Errorf("a resize beyond the node: %+v", c)
		}
		if now := b.rt.Find("main").Status.Id; id == "" || now == "" {
			t.Error("the container is gone")
		}
		b.stop()
	})
}

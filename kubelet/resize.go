package kubelet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cgroup"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/spec"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// Resize gives running containers other resources without a restart.
type Resize struct{ Containers []Resized }

// Resized is one container of a Resize.
type Resized struct {
	Container *corev1.Container // with what it shall have
	ID        string
	From      corev1.ResourceRequirements
}

// amounts are the resources that can change while a container runs.
type amounts struct{ cpuRequest, cpuLimit, memoryRequest, memoryLimit int64 }

// amountsOf returns what a container asks for; a limit it lacks is its pod's.
func amountsOf(whole *corev1.ResourceRequirements, r corev1.ResourceRequirements) amounts {
	a := amounts{r.Requests.Cpu().MilliValue(), r.Limits.Cpu().MilliValue(), r.Requests.Memory().Value(), r.Limits.Memory().Value()}
	if whole != nil {
		if a.cpuLimit == 0 {
			a.cpuLimit = whole.Limits.Cpu().MilliValue()
		}
		if a.memoryLimit == 0 {
			a.memoryLimit = whole.Limits.Memory().Value()
		}
	}
	return a
}

// changes compares what a container was given with what it shall have. restart:
// its policy wants it to begin anew for that.
func (v *View) changes(c *corev1.Container) (from corev1.ResourceRequirements, resize, restart bool) {
	if v.Actual == nil {
		return from, false, false
	}
	from, ok := v.Actual.Containers[c.Name]
	if !ok {
		return from, false, false
	}
	was, is := amountsOf(v.Actual.Pod, from), amountsOf(v.Pod.Spec.Resources, c.Resources)
	changed := map[corev1.ResourceName]bool{
		corev1.ResourceCPU:    was.cpuRequest != is.cpuRequest || was.cpuLimit != is.cpuLimit,
		corev1.ResourceMemory: was.memoryRequest != is.memoryRequest || was.memoryLimit != is.memoryLimit,
	}
	for _, p := range c.ResizePolicy {
		restart = restart || changed[p.ResourceName] && p.RestartPolicy == corev1.RestartContainer
	}
	return from, changed[corev1.ResourceCPU] || changed[corev1.ResourceMemory], restart
}

// resizing says whether the pod has not all that it was granted, and what to do.
func (d *decider) resizing() {
	var r Resize
	for _, list := range [][]corev1.Container{d.v.Pod.Spec.InitContainers, d.v.Pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			if cs := d.current(c.Name); cs != nil && cs.Running() {
				if from, yes, restart := d.v.changes(c); yes && !restart {
					r.Containers = append(r.Containers, Resized{c, cs.ID, from})
				}
			}
		}
	}
	if len(r.Containers) > 0 {
		d.p.Actions = append(d.p.Actions, Action{Resize: &r})
	}
}

// podResources are the limits of a pod's control group.
func (k *Kubelet) podResources(pod *corev1.Pod) cgroup.Resources {
	req, lim := semantics.Requests(pod), semantics.Limits(pod)
	r := cgroup.Resources{CPURequest: req.Cpu().MilliValue(), Pids: k.cfg.PodPids}
	// A limit of the pod stands only if every container has one.
	if limited(pod, corev1.ResourceCPU) && k.cfg.CPUQuota {
		r.CPULimit = lim.Cpu().MilliValue()
	}
	if limited(pod, corev1.ResourceMemory) {
		r.MemoryLimit = lim.Memory().Value()
	}
	return r
}

// resize changes memory and then CPU. What grows grows first for the pod as a
// whole, what shrinks shrinks last, so that no container ever has more than its pod.
func (k *Kubelet) resize(ctx context.Context, w *worker, pod *corev1.Pod, state *cri.State, r *Resize) error {
	want := k.podResources(pod)
	have := want
	if k.cfg.Cgroups {
		var err error
		if have, err = cgroup.Read(k.cgroupParent(pod)); err != nil {
			return err
		}
	}
	if err := k.roomToShrink(ctx, r, have, want, state); err != nil {
		return err
	}
	more := func(a, b int64) bool { return b == 0 && a != 0 || a != 0 && b > a } // 0 is no limit
	set := func(on bool, fn func(string, cgroup.Resources) error) error {
		if !on || !k.cfg.Cgroups {
			return nil
		}
		return fn(k.cgroupParent(pod), want)
	}
	for _, memory := range []bool{true, false} {
		grow, apply := more(have.CPULimit, want.CPULimit), cgroup.SetCPU
		if memory {
			grow, apply = more(have.MemoryLimit, want.MemoryLimit), cgroup.SetMemory
		}
		if err := set(grow, apply); err != nil {
			return err
		}
		if err := k.resizeContainers(ctx, w, pod, r, memory); err != nil {
			return err
		}
		if err := set(!grow, apply); err != nil {
			return err
		}
	}
	for _, c := range r.Containers {
		k.actual(w, c.Container.Name, c.Container.Resources, pod.Spec.Resources)
	}
	return nil
}

func (k *Kubelet) resizeContainers(ctx context.Context, w *worker, pod *corev1.Pod, r *Resize, memory bool) error {
	size := func(c Resized) int64 {
		was, is := amountsOf(nil, c.From), amountsOf(pod.Spec.Resources, c.Container.Resources)
		if memory {
			return is.memoryLimit - was.memoryLimit
		}
		return is.cpuLimit - was.cpuLimit
	}
	list := slices.Clone(r.Containers)
	slices.SortStableFunc(list, func(a, b Resized) int { return int(min(max(size(a)-size(b), -1), 1)) })
	for _, c := range list {
		next := c.Container
		if memory { // the processor's share follows in its own turn
			next = next.DeepCopy()
			next.Resources = mixed(c.From, c.Container.Resources)
		}
		in := &spec.Input{Pod: pod, Container: next, Node: &k.node, QOS: semantics.QoS(pod), MemoryCapacity: k.memoryCapacity()}
		if err := k.deps.Runtime.UpdateContainerResources(ctx, c.ID, &runtimeapi.ContainerResources{Linux: spec.Resources(in)}); err != nil {
			return fmt.Errorf("resize: container %s: %w", next.Name, err)
		}
	}
	return nil
}

// mixed takes memory from next and the rest from prev.
func mixed(prev, next corev1.ResourceRequirements) corev1.ResourceRequirements {
	out := *prev.DeepCopy()
	put := func(dst *corev1.ResourceList, src corev1.ResourceList) {
		if q, ok := src[corev1.ResourceMemory]; ok {
			if *dst == nil {
				*dst = corev1.ResourceList{}
			}
			(*dst)[corev1.ResourceMemory] = q
		}
	}
	put(&out.Requests, next.Requests)
	put(&out.Limits, next.Limits)
	return out
}

// roomToShrink refuses limits of memory below what is in use.
func (k *Kubelet) roomToShrink(ctx context.Context, r *Resize, have, want cgroup.Resources, state *cri.State) error {
	less := func(was, is int64) bool { return is != 0 && (was == 0 || is < was) }
	shrinks := map[string]int64{}
	for _, c := range r.Containers {
		if was, is := c.From.Limits.Memory().Value(), c.Container.Resources.Limits.Memory().Value(); less(was, is) {
			shrinks[c.ID] = is
		}
	}
	if len(shrinks) == 0 && !less(have.MemoryLimit, want.MemoryLimit) {
		return nil
	}
	var errs []error
	total := int64(0)
	for _, c := range state.Running() {
		s, err := k.deps.Runtime.ContainerStats(ctx, c.ID)
		if err != nil {
			return fmt.Errorf("unable to read memory usage for pod %s_%s(%s)", state.Name, state.Namespace, state.UID)
		}
		used := int64(s.GetMemory().GetUsageBytes().GetValue())
		total += used
		if limit := shrinks[c.ID]; limit != 0 && used >= limit {
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", c.Name, limit, used))
		}
	}
	if less(have.MemoryLimit, want.MemoryLimit) && total >= want.MemoryLimit {
		errs = append([]error{fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", want.MemoryLimit, total)}, errs...)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	return nil
}

// resized tells how a resize went: failed with err, or done when the pod has
// all that it was granted.
func (k *Kubelet) resized(w *worker, pod *corev1.Pod, state *cri.State, err error) {
	v := View{Pod: pod, State: state}
	w.mu.Lock()
	v.Actual = w.book.Actual
	progress := w.progress
	w.mu.Unlock()
	if err != nil {
		next := &corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, Reason: corev1.PodReasonError, Message: err.Error(), ObservedGeneration: pod.Generation}
		if progress != nil {
			next.ObservedGeneration = progress.ObservedGeneration
		}
		w.mu.Lock()
		w.progress = next
		w.mu.Unlock()
		if progress == nil || progress.Message != next.Message {
			k.containerEvent(pod, "", corev1.EventTypeWarning, "ResizeError", resizeText("Pod resize error", pod, next.ObservedGeneration, err.Error()))
		}
		return
	}
	if progress == nil {
		return
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			cs := state.Container(list[i].Name)
			if _, yes, _ := v.changes(&list[i]); yes && cs != nil && cs.Running() {
				return
			}
		}
	}
	w.mu.Lock()
	w.progress = nil
	w.mu.Unlock()
	k.containerEvent(pod, "", corev1.EventTypeNormal, "ResizeCompleted", resizeText("Pod resize completed", pod, progress.ObservedGeneration, ""))
	k.retryResizes()
}

func (k *Kubelet) memoryCapacity() int64 {
	capacity := k.nodes.Capacity()
	return capacity.Memory().Value()
}

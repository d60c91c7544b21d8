package evict

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// Usage is what a pod uses.
type Usage struct {
	Memory     int64 // working set
	Disk       int64 // writable layers, logs and volumes
	Inodes     int64
	Pids       int64
	Volumes    map[string]int64 // bytes of each emptyDir
	Containers map[string]ContainerUsage
}

// ContainerUsage is what one container uses.
type ContainerUsage struct{ Memory, Rootfs, Logs int64 }

// Priority of a pod; 0 when it has none.
func Priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// Critical says whether a pod must not be evicted.
func Critical(p *corev1.Pod) bool { return Priority(p) >= 2_000_000_000 }

// Rank orders pods for eviction: those that use more than they asked for first,
// then the less important, then those furthest above their requests. Processes
// and inodes are not asked for: there only importance and use count.
func Rank(r corev1.ResourceName, pods []*corev1.Pod, usage map[string]Usage) []*corev1.Pod {
	over := func(p *corev1.Pod) int64 {
		u, asked := usage[string(p.UID)], semantics.Requests(p)
		switch r {
		case corev1.ResourceMemory:
			return u.Memory - asked.Memory().Value()
		case corev1.ResourceEphemeralStorage:
			return u.Disk - asked.StorageEphemeral().Value()
		case "inodes":
			return u.Inodes
		}
		return u.Pids
	}
	exceeds := func(p *corev1.Pod) int {
		if (r == corev1.ResourceMemory || r == corev1.ResourceEphemeralStorage) && over(p) <= 0 {
			return 1
		}
		return 0
	}
	out := slices.Clone(pods)
	slices.SortStableFunc(out, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(exceeds(a), exceeds(b)), cmp.Compare(Priority(a), Priority(b)), cmp.Compare(over(b), over(a)))
	})
	return out
}

// Message is what an evicted pod is told.
func Message(m Met, pod *corev1.Pod, u Usage) string {
	r := m.Signal.Resource()
	text := fmt.Sprintf("The node was low on resource: %v. ", r) + m.Text()
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			c := &list[i]
			used, ok := u.Containers[c.Name]
			if !ok {
				continue
			}
			amount := used.Memory
			switch r {
			case corev1.ResourceMemory:
			case corev1.ResourceEphemeralStorage:
				amount = used.Rootfs + used.Logs
			default:
				continue
			}
			asked := c.Resources.Requests[r]
			if have := resource.NewQuantity(amount, resource.BinarySI); have.Cmp(asked) > 0 {
				text += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, have, asked.String(), r)
			}
		}
	}
	return text
}

// OverLimit says which limit of local storage a pod exceeds; "" when none.
func OverLimit(pod *corev1.Pod, u Usage) string {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.Sign() <= 0 {
			continue
		}
		if used := resource.NewQuantity(u.Volumes[v.Name], resource.BinarySI); used.Cmp(*v.EmptyDir.SizeLimit) > 0 {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
		}
	}
	if limit, ok := semantics.Limits(pod)[corev1.ResourceEphemeralStorage]; ok {
		if used := resource.NewQuantity(u.Disk, resource.BinarySI); used.Cmp(limit) > 0 {
			return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		limit := c.Resources.Limits.StorageEphemeral()
		used := u.Containers[c.Name]
		if limit.Value() > 0 && used.Rootfs+used.Logs > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	return ""
}

// Limited says whether any limit of local storage binds the pod.
func Limited(pod *corev1.Pod) bool {
	if _, ok := semantics.Limits(pod)[corev1.ResourceEphemeralStorage]; ok {
		return true
	}
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.EmptyDir != nil && v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() > 0
	})
}

package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
	judge "github.com/sampan-dev/sampan/semantics/pod"
)

func subs() []resource.Sub[corev1.Pod] {
	status := resource.StatusSub(keepForStatus, validateStatus, "metadata.deletionTimestamp", "metadata.ownerReferences")
	status.Warnings = statusWarnings
	return []resource.Sub[corev1.Pod]{
		{Name: "ephemeralcontainers", Prepare: prepareEphemeral, Validate: validateEphemeral},
		{Name: "resize", Prepare: prepareResize, Validate: validateResize},
		status,
	}
}

func keepForStatus(next, prev *corev1.Pod) {
	next.Spec = *prev.Spec.DeepCopy()
	next.DeletionTimestamp = prev.DeletionTimestamp
	// Old kubelets garble owners, which would break garbage collection.
	next.OwnerReferences = prev.OwnerReferences
	if next.Status.QOSClass == "" {
		next.Status.QOSClass = prev.Status.QOSClass
	}
	keepObserved(&next.Status, &prev.Status)
}

// keepObserved puts back generations that a client too old to know them dropped.
func keepObserved(next, prev *corev1.PodStatus) {
	if next.ObservedGeneration == 0 {
		next.ObservedGeneration = prev.ObservedGeneration
	}
	old := map[corev1.PodConditionType][]int64{}
	for _, c := range prev.Conditions {
		old[c.Type] = append(old[c.Type], c.ObservedGeneration)
	}
	for i := range next.Conditions {
		c := &next.Conditions[i]
		if list := old[c.Type]; len(list) > 0 {
			old[c.Type] = list[1:]
			if c.ObservedGeneration == 0 {
				c.ObservedGeneration = list[0]
			}
		}
	}
}

func statusWarnings(next, _ *corev1.Pod) []string {
	var out []string
	for i, ip := range next.Status.PodIPs {
		out = append(out, validation.GetWarningsForIP(field.NewPath("status", "podIPs").Index(i).Child("ip"), ip.IP)...)
	}
	for i, ip := range next.Status.HostIPs {
		out = append(out, validation.GetWarningsForIP(field.NewPath("status", "hostIPs").Index(i).Child("ip"), ip.IP)...)
	}
	return out
}

// keepAllBut puts back everything of prev, save what change then sets.
func keepAllBut(next, prev *corev1.Pod, change func(spec *corev1.PodSpec)) {
	spec := *prev.Spec.DeepCopy()
	change(&spec)
	next.Spec, next.Status = spec, *prev.Status.DeepCopy()
	metav1.ResetObjectMetaForStatus(&next.ObjectMeta, &prev.ObjectMeta)
}

func prepareEphemeral(_ *resource.Request, next, prev *corev1.Pod) {
	added := next.Spec.EphemeralContainers
	keepAllBut(next, prev, func(s *corev1.PodSpec) { s.EphemeralContainers = added })
}

func validateEphemeral(next, prev *corev1.Pod) field.ErrorList {
	if judge.IsMirror(prev) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := validateWhole(next)
	path := field.NewPath("spec", "ephemeralContainers")
	now := map[string]*corev1.EphemeralContainer{}
	for i := range next.Spec.EphemeralContainers {
		now[next.Spec.EphemeralContainers[i].Name] = &next.Spec.EphemeralContainers[i]
	}
	for i := range prev.Spec.EphemeralContainers {
		old := &prev.Spec.EphemeralContainers[i]
		if c, ok := now[old.Name]; !ok {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", old.Name)))
		} else if !equality.Semantic.DeepEqual(old, c) {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", old.Name, diff.Diff(old, c))))
		}
	}
	return errs
}

func prepareResize(_ *resource.Request, next, prev *corev1.Pod) {
	containers, ok1 := resized(next.Spec.Containers, prev.Spec.Containers)
	inits, ok2 := resized(next.Spec.InitContainers, prev.Spec.InitContainers)
	// Containers were added, removed or renamed: leave it to validation.
	if !ok1 || !ok2 {
		return
	}
	whole := next.Spec.Resources
	keepAllBut(next, prev, func(s *corev1.PodSpec) {
		s.Containers, s.InitContainers, s.Resources = containers, inits, whole
	})
}

// resized takes resources and resize policy from next, the rest from prev.
func resized(next, prev []corev1.Container) ([]corev1.Container, bool) {
	if len(next) != len(prev) {
		return nil, false
	}
	var out []corev1.Container
	for i := range next {
		if next[i].Name != prev[i].Name {
			return nil, false
		}
		c := *prev[i].DeepCopy()
		c.Resources, c.ResizePolicy = next[i].Resources, next[i].ResizePolicy
		out = append(out, c)
	}
	return out, true
}

func validateResize(next, prev *corev1.Pod) field.ErrorList {
	forbid := func(text string) field.ErrorList {
		return field.ErrorList{field.Forbidden(field.NewPath(""), text)}
	}
	wholeSet := func(p *corev1.Pod) bool {
		return p.Spec.Resources != nil && len(p.Spec.Resources.Requests)+len(p.Spec.Resources.Limits) > 0
	}
	switch {
	case wholeSet(prev) || wholeSet(next):
		return forbid("pods with pod-level resources cannot be resized")
	case judge.IsMirror(prev):
		return forbid("static pods cannot be resized")
	case prev.Spec.OS != nil && prev.Spec.OS.Name == corev1.Windows:
		return forbid("windows pods cannot be resized")
	}
	errs, path := validateWhole(next), field.NewPath("spec")
	if len(next.Spec.Containers) != len(prev.Spec.Containers) || len(next.Spec.InitContainers) != len(prev.Spec.InitContainers) {
		return append(errs, field.Forbidden(path, "pod resize may not add or remove containers"))
	}
	if judge.QoS(prev) != judge.QoS(next) {
		errs = append(errs, field.Invalid(path, next.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	if !nodeResizes(prev) {
		errs = append(errs, field.Forbidden(path, "Pod running on node without support for resize"))
	}
	for i := range prev.Spec.InitContainers {
		n, p, at := &next.Spec.InitContainers[i], &prev.Spec.InitContainers[i], path.Child("initContainers").Index(i)
		if judge.Sidecar(p) {
			errs = append(errs, resizedContainer(n, p, "only cpu and memory resources for sidecar containers are mutable", at)...)
		} else if !equality.Semantic.DeepEqual(n, p) {
			errs = append(errs, field.Forbidden(path, "resources for non-sidecar init containers are immutable"))
		}
	}
	for i := range prev.Spec.Containers {
		errs = append(errs, resizedContainer(&next.Spec.Containers[i], &prev.Spec.Containers[i], "only cpu and memory resources are mutable", path.Child("containers").Index(i))...)
	}
	return errs
}

// nodeResizes tells from what the kubelet reports whether it can resize.
func nodeResizes(p *corev1.Pod) bool {
	for i := range p.Status.ContainerStatuses {
		if s := &p.Status.ContainerStatuses[i]; s.State.Running != nil {
			return s.Resources != nil
		}
	}
	return true
}

func resizedContainer(next, prev *corev1.Container, text string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	removed := func(next, prev corev1.ResourceList) bool {
		for name := range prev {
			if _, ok := next[name]; !ok {
				return true
			}
		}
		return false
	}
	if removed(next.Resources.Requests, prev.Resources.Requests) {
		errs = append(errs, field.Forbidden(path.Child("resources", "requests"), "resource requests cannot be removed"))
	}
	if removed(next.Resources.Limits, prev.Resources.Limits) {
		errs = append(errs, field.Forbidden(path.Child("resources", "limits"), "resource limits cannot be removed"))
	}
	same := next.DeepCopy()
	restore := func(list, old corev1.ResourceList) corev1.ResourceList {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			delete(list, name)
			if q, ok := old[name]; ok {
				if list == nil {
					list = corev1.ResourceList{}
				}
				list[name] = q
			}
		}
		return list
	}
	same.Resources.Requests = restore(same.Resources.Requests, prev.Resources.Requests)
	same.Resources.Limits = restore(same.Resources.Limits, prev.Resources.Limits)
	if !equality.Semantic.DeepEqual(same, prev) {
		errs = append(errs, field.Forbidden(field.NewPath("spec"), text))
	}
	return errs
}

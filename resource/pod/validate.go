package pod

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/semantics/podspec"
)

func validateWhole(p *corev1.Pod) field.ErrorList {
	errs := podspec.ValidateAnnotations(p.Annotations, &p.Spec, field.NewPath("metadata", "annotations"))
	return append(errs, podspec.Validate(&p.Spec, &p.ObjectMeta, field.NewPath("spec"))...)
}

func validate(next, prev *corev1.Pod) field.ErrorList {
	errs, path := validateWhole(next), field.NewPath("spec")
	if prev != nil {
		return append(errs, validateUpdate(next, prev)...)
	}
	if len(next.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if next.Spec.NodeName != "" && len(next.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(path.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// updatable is what the refusal of an update tells may change.
const updatable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

func validateUpdate(next, prev *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateAnnotationsUpdate(next, prev)
	n, p := &next.Spec, &prev.Spec
	for _, list := range []struct {
		name       string
		next, prev []corev1.Container
	}{{"containers", n.Containers, p.Containers}, {"initContainers", n.InitContainers, p.InitContainers}} {
		if len(list.next) != len(list.prev) {
			return append(errs, field.Forbidden(path.Child(list.name), "pod updates may not add or remove containers"))
		}
	}
	late := validateDeadline(n.ActiveDeadlineSeconds, p.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds"))
	errs = append(errs, late...)
	errs = append(errs, onlyAddedTolerations(n.Tolerations, p.Tolerations, path.Child("tolerations"))...)
	errs = append(errs, onlyRemovedGates(n.SchedulingGates, p.SchedulingGates, path.Child("schedulingGates"))...)
	if equality.Semantic.DeepEqual(n, p) {
		return errs
	}
	// What may change is put back, so that whatever still differs may not.
	same := n.DeepCopy()
	for i := range same.Containers {
		same.Containers[i].Image = p.Containers[i].Image
	}
	for i := range same.InitContainers {
		same.InitContainers[i].Image = p.InitContainers[i].Image
	}
	same.ActiveDeadlineSeconds, same.Tolerations, same.SchedulingGates = p.ActiveDeadlineSeconds, p.Tolerations, p.SchedulingGates
	if g, old := same.TerminationGracePeriodSeconds, p.TerminationGracePeriodSeconds; g != nil && old != nil && *old < 0 && *g == 1 {
		same.TerminationGracePeriodSeconds = old
	}
	if len(p.SchedulingGates) > 0 {
		errs = append(errs, gatedChanges(same, p, path)...)
	}
	if !equality.Semantic.DeepEqual(same, p) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, diff.Diff(p, same))))
	}
	return errs
}

func validateDeadline(next, prev *int64, path *field.Path) field.ErrorList {
	switch {
	case next == nil && prev == nil:
		return nil
	case next == nil:
		return field.ErrorList{field.Invalid(path, next, "must not update from a positive integer to nil value")}
	case *next < 0 || *next > math.MaxInt32:
		return field.ErrorList{field.Invalid(path, *next, validation.InclusiveRangeError(0, math.MaxInt32))}
	case prev != nil && *prev < *next:
		return field.ErrorList{field.Invalid(path, *next, "must be less than or equal to previous value")}
	}
	return nil
}

func onlyAddedTolerations(next, prev []corev1.Toleration, path *field.Path) field.ErrorList {
	for _, old := range prev {
		if !slices.ContainsFunc(next, func(t corev1.Toleration) bool {
			t.TolerationSeconds = old.TolerationSeconds
			return t == old
		}) {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func onlyRemovedGates(next, prev []corev1.PodSchedulingGate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, g := range next {
		if !slices.Contains(prev, g) {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// gatedChanges judges what may still be narrowed while a pod waits at its
// gates, and puts it back in next.
func gatedChanges(next, prev *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(next.NodeSelector, prev.NodeSelector) {
		for k, v := range prev.NodeSelector {
			if now, ok := next.NodeSelector[k]; !ok || now != v {
				errs = append(errs, field.Invalid(path.Child("nodeSelector"), next.NodeSelector, "only additions are allowed (no mutations or deletions)"))
				break
			}
		}
		next.NodeSelector = prev.NodeSelector
	}
	var was, is *corev1.NodeAffinity
	if prev.Affinity != nil {
		was = prev.Affinity.NodeAffinity
	}
	if next.Affinity != nil {
		is = next.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(was, is) {
		return errs
	}
	errs = append(errs, narrowedAffinity(is, was, path.Child("affinity", "nodeAffinity"))...)
	switch {
	case next.Affinity == nil:
		next.Affinity = &corev1.Affinity{NodeAffinity: was}
	case prev.Affinity == nil && next.Affinity.PodAffinity == nil && next.Affinity.PodAntiAffinity == nil:
		next.Affinity = nil
	default:
		next.Affinity.NodeAffinity = was
	}
	return errs
}

func narrowedAffinity(next, prev *corev1.NodeAffinity, path *field.Path) field.ErrorList {
	var was, is *corev1.NodeSelector
	if prev != nil {
		was = prev.RequiredDuringSchedulingIgnoredDuringExecution
	}
	if next != nil {
		is = next.RequiredDuringSchedulingIgnoredDuringExecution
	}
	if was == nil {
		return nil
	}
	path = path.Child("requiredDuringSchedulingIgnoredDuringExecution")
	if is == nil {
		return field.ErrorList{field.Invalid(path, is, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	path = path.Child("nodeSelectorTerms")
	if len(was.NodeSelectorTerms) > 0 && len(was.NodeSelectorTerms) != len(is.NodeSelectorTerms) {
		return field.ErrorList{field.Invalid(path, is.NodeSelectorTerms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range was.NodeSelectorTerms {
		if !startsWith(is.NodeSelectorTerms[i].MatchExpressions, was.NodeSelectorTerms[i].MatchExpressions) ||
			!startsWith(is.NodeSelectorTerms[i].MatchFields, was.NodeSelectorTerms[i].MatchFields) {
			errs = append(errs, field.Invalid(path.Index(i), is.NodeSelectorTerms[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

func startsWith(list, prefix []corev1.NodeSelectorRequirement) bool {
	return len(list) >= len(prefix) && equality.Semantic.DeepEqual(list[:len(prefix)], prefix)
}

func validateAnnotationsUpdate(next, prev *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata", "annotations")
	was, had := prev.Annotations[corev1.MirrorPodAnnotationKey]
	is, has := next.Annotations[corev1.MirrorPodAnnotationKey]
	switch {
	case had && (!has || was != is):
		errs = append(errs, field.Forbidden(path.Key(corev1.MirrorPodAnnotationKey), "may not remove or update mirror pod annotation"))
	case has && !had:
		errs = append(errs, field.Forbidden(path.Key(corev1.MirrorPodAnnotationKey), "may not add mirror pod annotation"))
	}
	for k, v := range prev.Annotations {
		if strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) && next.Annotations[k] != v {
			errs = append(errs, field.Forbidden(path.Key(k), "may not remove or update AppArmor annotations"))
		}
	}
	for k := range next.Annotations {
		if _, ok := prev.Annotations[k]; !ok && strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			errs = append(errs, field.Forbidden(path.Key(k), "may not add AppArmor annotations"))
		}
	}
	return errs
}

func validateStatus(next, prev *corev1.Pod) field.ErrorList {
	errs, path := validateAnnotationsUpdate(next, prev), field.NewPath("status")
	n, p := &next.Status, &prev.Status
	if n.NominatedNodeName != "" && n.NominatedNodeName != p.NominatedNodeName {
		for _, m := range apivalidation.NameIsDNSSubdomain(n.NominatedNodeName, false) {
			errs = append(errs, field.Invalid(path.Child("nominatedNodeName"), n.NominatedNodeName, m))
		}
	}
	errs = append(errs, apivalidation.ValidateImmutableField(n.QOSClass, p.QOSClass, path.Child("qosClass"))...)
	policy := func(_ string) corev1.RestartPolicy { return prev.Spec.RestartPolicy }
	if !allMayRestart(&prev.Spec) {
		errs = append(errs, noResurrection(n.ContainerStatuses, p.ContainerStatuses, policyOf(prev.Spec.Containers, policy), path.Child("containerStatuses"))...)
		errs = append(errs, noResurrection(n.InitContainerStatuses, p.InitContainerStatuses, policyOf(prev.Spec.InitContainers, policy), path.Child("initContainerStatuses"))...)
	}
	errs = append(errs, noResurrection(n.EphemeralContainerStatuses, p.EphemeralContainerStatuses,
		func(string) corev1.RestartPolicy { return corev1.RestartPolicyNever }, path.Child("ephemeralContainerStatuses"))...)
	errs = append(errs, validateIPs(n.PodIPs, func(ip corev1.PodIP) string { return ip.IP }, path.Child("podIPs"))...)
	if len(n.HostIPs) > 0 && n.HostIP != n.HostIPs[0].IP {
		errs = append(errs, field.Invalid(path.Child("hostIPs").Index(0).Child("ip"), n.HostIPs[0].IP, "must be equal to `hostIP`"))
	}
	return append(errs, validateIPs(n.HostIPs, func(ip corev1.HostIP) string { return ip.IP }, path.Child("hostIPs"))...)
}

// allMayRestart says whether the end of one container can make all begin again.
func allMayRestart(spec *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			for _, r := range list[i].RestartPolicyRules {
				if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// policyOf is the restart policy of a container: its own, or the pod's. One
// with rules of its own may always come back.
func policyOf(containers []corev1.Container, pod func(string) corev1.RestartPolicy) func(string) corev1.RestartPolicy {
	return func(name string) corev1.RestartPolicy {
		for i := range containers {
			if c := &containers[i]; c.Name == name {
				switch {
				case len(c.RestartPolicyRules) > 0:
					return corev1.RestartPolicyAlways
				case c.RestartPolicy != nil:
					return corev1.RestartPolicy(*c.RestartPolicy)
				}
			}
		}
		return pod(name)
	}
}

// noResurrection forbids that a container that ended for good runs again.
func noResurrection(next, prev []corev1.ContainerStatus, policy func(string) corev1.RestartPolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range prev {
		ended, p := prev[i].State.Terminated, policy(prev[i].Name)
		if ended == nil || p == corev1.RestartPolicyAlways || (ended.ExitCode != 0 && p == corev1.RestartPolicyOnFailure) {
			continue
		}
		for k := range next {
			if next[k].Name == prev[i].Name && next[k].State.Terminated == nil {
				errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

func validateIPs[T any](list []T, ip func(T) string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	families, seen := map[bool]int{}, map[string]bool{}
	for i := range list {
		a := ip(list[i])
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i), a, false, nil)...)
		if seen[a] {
			errs = append(errs, field.Duplicate(path.Index(i), list[i]))
		}
		seen[a] = true
		families[strings.Contains(a, ":")]++
	}
	if families[true] > 1 || families[false] > 1 {
		errs = append(errs, field.Invalid(path, list, "may specify no more than one IP for each IP family"))
	}
	return errs
}

package node

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

func validate(next, prev *corev1.Node) (errs field.ErrorList) {
	spec, meta := field.NewPath("spec"), field.NewPath("metadata")
	errs = append(errs, validateTaints(next.Spec.Taints, spec.Child("taints"))...)
	errs = append(errs, validateAnnotations(next, meta.Child("annotations"))...)
	if prev == nil {
		errs = append(errs, validateResources(next, field.NewPath("status"))...)
		errs = append(errs, validatePodCIDRs(&next.Spec, spec)...)
		return errs
	}
	return append(errs, validateUpdate(next, prev, spec)...)
}

func validateStatus(next, _ *corev1.Node) (errs field.ErrorList) {
	errs = append(errs, validateResources(next, field.NewPath("status"))...)
	path := field.NewPath("status", "addresses")
	for i, a := range next.Status.Addresses {
		if slices.Contains(next.Status.Addresses[:i], a) {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
	}
	return errs
}

// validateUpdate lets values of spec be set once.
func validateUpdate(next, prev *corev1.Node, spec *field.Path) (errs field.ErrorList) {
	for i, cidr := range prev.Spec.PodCIDRs {
		if i >= len(next.Spec.PodCIDRs) || len(prev.Spec.PodCIDRs) != len(next.Spec.PodCIDRs) {
			errs = append(errs, field.Forbidden(spec.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
			break
		}
		if next.Spec.PodCIDRs[i] != cidr {
			errs = append(errs, field.Forbidden(spec.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
			break
		}
	}
	if len(prev.Spec.PodCIDRs) == 0 {
		errs = append(errs, validatePodCIDRs(&next.Spec, spec)...)
	}
	if prev.Spec.ProviderID != "" && prev.Spec.ProviderID != next.Spec.ProviderID {
		errs = append(errs, field.Forbidden(spec.Child("providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	// All but a few fields of spec are as they were.
	same := *prev.Spec.DeepCopy()
	same.Unschedulable, same.Taints = next.Spec.Unschedulable, next.Spec.Taints
	same.PodCIDR, same.PodCIDRs, same.ProviderID = next.Spec.PodCIDR, next.Spec.PodCIDRs, next.Spec.ProviderID
	same.ConfigSource = next.Spec.ConfigSource
	if !equality.Semantic.DeepEqual(same, next.Spec) {
		errs = append(errs, field.Forbidden(field.NewPath(""), "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)"))
	}
	return errs
}

func validatePodCIDRs(s *corev1.NodeSpec, spec *field.Path) (errs field.ErrorList) {
	path := spec.Child("podCIDRs")
	for i, cidr := range s.PodCIDRs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), cidr, false, nil)...)
	}
	if len(s.PodCIDRs) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(s.PodCIDRs)
		if err != nil {
			errs = append(errs, field.InternalError(path, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%v", err)))
		}
		if !dual || len(s.PodCIDRs) > 2 {
			errs = append(errs, field.Invalid(path, s.PodCIDRs, "may specify no more than one CIDR for each IP family"))
		}
	}
	return errs
}

// validateResources judges the names and amounts that a node offers.
func validateResources(n *corev1.Node, status *field.Path) (errs field.ErrorList) {
	judge := func(list corev1.ResourceList, path *field.Path) {
		for name, amount := range list {
			errs = append(errs, validateResourceName(string(name), path.Key(string(name)))...)
			errs = append(errs, validateAmount(string(name), amount, path.Key(string(name)))...)
		}
	}
	judge(n.Status.Capacity, status.Child("capacity"))
	judge(n.Status.Allocatable, status.Child("allocatable"))
	return errs
}

func validateResourceName(name string, path *field.Path) (errs field.ErrorList) {
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path, name, msg))
	}
	if len(errs) == 0 && !strings.Contains(name, "/") && !standardResource(name) {
		errs = append(errs, field.Invalid(path, name, "must be a standard resource type or fully qualified"))
	}
	return errs
}

func standardResource(name string) bool {
	switch corev1.ResourceName(name) {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods,
		corev1.ResourceStorage, corev1.ResourceQuotas, corev1.ResourceServices,
		corev1.ResourceReplicationControllers, corev1.ResourceSecrets,
		corev1.ResourcePersistentVolumeClaims, corev1.ResourceConfigMaps, "attachable-volumes":
		return true
	}
	return strings.HasPrefix(name, corev1.ResourceHugePagesPrefix) || strings.HasPrefix(name, corev1.ResourceAttachableVolumesPrefix)
}

// validateAmount wants no less than nothing, and whole numbers of what comes whole.
func validateAmount(name string, amount resource.Quantity, path *field.Path) (errs field.ErrorList) {
	if amount.Cmp(resource.Quantity{}) < 0 {
		errs = append(errs, field.Invalid(path, amount.String(), "must be greater than or equal to 0"))
	}
	whole := name == string(corev1.ResourcePods) || (strings.Contains(name, "/") && !strings.Contains(name, "kubernetes.io/"))
	if whole && amount.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, amount.String(), "must be an integer"))
	}
	return errs
}

// validateTaints wants each taint well formed and each key and effect once.
func validateTaints(taints []corev1.Taint, path *field.Path) (errs field.ErrorList) {
	type id struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := map[id]bool{}
	for i := range taints {
		t, at := &taints[i], path.Index(i)
		errs = append(errs, metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		if msgs := validation.IsValidLabelValue(t.Value); len(msgs) != 0 {
			errs = append(errs, field.Invalid(at.Child("value"), t.Value, strings.Join(msgs, ";")))
		}
		errs = append(errs, validateEffect(t.Effect, at.Child("effect"))...)
		if seen[id{t.Key, t.Effect}] {
			d := field.Duplicate(at, *t)
			d.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, d)
			continue
		}
		seen[id{t.Key, t.Effect}] = true
	}
	return errs
}

func validateEffect(effect corev1.TaintEffect, path *field.Path) field.ErrorList {
	switch effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		return nil
	case "":
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.NotSupported(path, effect, []corev1.TaintEffect{
		corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute,
	})}
}

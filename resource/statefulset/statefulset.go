// Package statefulset defines the StatefulSet.
//
// Job: what the API server knows of stateful sets, and their retired versions.
//
// Not its job: the template (semantics/podspec), making pods (controller).
//
// Invariants: of the specification only what upstream lists may change.
package statefulset

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

type set = appsv1.StatefulSet

// Kind is the StatefulSet.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[set]{
		Group: "apps", Version: "v1", Kind: "StatefulSet", Plural: "statefulsets",
		Short: []string{"sts"}, Categories: []string{"all"},
		Default: setDefaults,
		Prepare: func(_ *resource.Request, next, prev *set) {
			next.Status = appsv1.StatefulSetStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(s *set) any { return &s.Spec },
		// Pods are called after the set and are hosts, which have no dots.
		Name:     apivalidation.NameIsDNSLabel,
		Validate: validate,
		Warnings: func(next, prev *set) []string {
			if prev != nil && prev.Generation == next.Generation {
				return nil
			}
			out := podspec.TemplateWarnings(&next.Spec.Template, field.NewPath("spec", "template"))
			if n := next.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
				out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
			}
			return out
		},
		Subs: []resource.Sub[set]{resource.StatusSub(func(next, prev *set) { next.Spec = *prev.Spec.DeepCopy() }, validateStatus)},
		Scale: &resource.Scale[set]{
			Get: func(s *set) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
				return &autoscalingv1.ScaleSpec{Replicas: ptr.Deref(s.Spec.Replicas, 0)},
					&autoscalingv1.ScaleStatus{Replicas: s.Status.Replicas, Selector: podspec.ScaleSelector(s.Spec.Selector)}
			},
			Set:  func(s *set, n int32) { s.Spec.Replicas = &n },
			Path: "spec.replicas",
		},
		Columns:       columns(),
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also:          versions(),
	})
}

func fill[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func setDefaults(o *set) {
	s := &o.Spec
	podspec.DefaultTemplate(&s.Template)
	fill(&s.Replicas, 1)
	fill(&s.RevisionHistoryLimit, 10)
	if s.PodManagementPolicy == "" {
		s.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	if s.UpdateStrategy.Type == "" {
		s.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		if s.UpdateStrategy.RollingUpdate == nil {
			s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{}
		}
	}
	if r := s.UpdateStrategy.RollingUpdate; s.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && r != nil {
		fill(&r.Partition, 0)
		fill(&r.MaxUnavailable, intstr.FromInt32(1))
	}
	fill(&s.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	p := s.PersistentVolumeClaimRetentionPolicy
	if p.WhenDeleted == "" {
		p.WhenDeleted = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	if p.WhenScaled == "" {
		p.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	for i := range s.VolumeClaimTemplates {
		c := &s.VolumeClaimTemplates[i]
		c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim"
		podspec.DefaultClaim(&c.Spec)
		if c.Status.Phase == "" {
			c.Status.Phase = corev1.ClaimPending
		}
	}
}

func validate(next, prev *set) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := validatePolicies(s, path)
	errs = append(errs, podspec.NonNegative(path, map[string]int32{"replicas": ptr.Deref(s.Replicas, 0), "minReadySeconds": s.MinReadySeconds})...)
	if s.Ordinals != nil {
		errs = append(errs, podspec.NonNegative(path.Child("ordinals"), map[string]int32{"start": s.Ordinals.Start})...)
	}
	if s.ServiceName != "" && prev == nil {
		for _, m := range validation.IsDNS1123Label(s.ServiceName) {
			errs = append(errs, field.Invalid(path.Child("serviceName"), s.ServiceName, m))
		}
	}
	errs = append(errs, podspec.Selector(s.Selector, "statefulset", path.Child("selector"))...)
	errs = append(errs, podspec.LongRunning(&s.Template, s.Selector, path)...)
	errs = append(errs, podspec.NoDeadline(&s.Template, "StatefulSet", path.Child("template"))...)
	if prev != nil {
		errs = append(errs, validateUpdate(next, prev)...)
	}
	return errs
}

func validatePolicies(s *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.PodManagementPolicy {
	case "":
		errs = append(errs, field.Required(path.Child("podManagementPolicy"), ""))
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), s.PodManagementPolicy,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	at := path.Child("updateStrategy")
	switch r := s.UpdateStrategy.RollingUpdate; s.UpdateStrategy.Type {
	case "":
		errs = append(errs, field.Required(at, ""))
	case appsv1.OnDeleteStatefulSetStrategyType:
		if r != nil {
			errs = append(errs, field.Invalid(at.Child("rollingUpdate"), r, fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType)))
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r != nil {
			at = at.Child("rollingUpdate")
			errs = append(errs, podspec.NonNegative(at, map[string]int32{"partition": ptr.Deref(r.Partition, 0)})...)
			errs = append(errs, podspec.IntOrPercent(r.MaxUnavailable, at.Child("maxUnavailable"))...)
			if r.MaxUnavailable != nil && podspec.IsZero(r.MaxUnavailable) {
				errs = append(errs, field.Invalid(at.Child("maxUnavailable"), *r.MaxUnavailable, "cannot be 0"))
			}
			errs = append(errs, podspec.AtMostAll(r.MaxUnavailable, at.Child("maxUnavailable"))...)
		}
	default:
		errs = append(errs, field.Invalid(at, s.UpdateStrategy, fmt.Sprintf("must be '%s' or '%s'", appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType)))
	}
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		errs = append(errs, retention(p.WhenDeleted, at.Child("whenDeleted"))...)
		errs = append(errs, retention(p.WhenScaled, at.Child("whenScaled"))...)
	}
	return errs
}

func retention(p appsv1.PersistentVolumeClaimRetentionPolicyType, path *field.Path) field.ErrorList {
	keep, drop := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	if p == keep || p == drop {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, p, []appsv1.PersistentVolumeClaimRetentionPolicyType{keep, drop})}
}

func validateUpdate(next, prev *set) field.ErrorList {
	same, old := next.Spec.DeepCopy(), &prev.Spec
	same.Replicas, same.Template, same.UpdateStrategy, same.MinReadySeconds = old.Replicas, old.Template, old.UpdateStrategy, old.MinReadySeconds
	same.Ordinals, same.RevisionHistoryLimit = old.Ordinals, old.RevisionHistoryLimit
	same.PersistentVolumeClaimRetentionPolicy = old.PersistentVolumeClaimRetentionPolicy
	if equality.Semantic.DeepEqual(same, old) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")}
}

func validateStatus(next, prev *set) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := podspec.NonNegative(path, map[string]int32{
		"replicas": s.Replicas, "readyReplicas": s.ReadyReplicas, "currentReplicas": s.CurrentReplicas,
		"updatedReplicas": s.UpdatedReplicas, "availableReplicas": s.AvailableReplicas, "collisionCount": ptr.Deref(s.CollisionCount, 0),
	})
	errs = append(errs, apivalidation.ValidateNonnegativeField(s.ObservedGeneration, path.Child("observedGeneration"))...)
	for _, c := range []struct {
		name        string
		value, most int32
		of          string
	}{
		{"readyReplicas", s.ReadyReplicas, s.Replicas, "status.replicas"},
		{"currentReplicas", s.CurrentReplicas, s.Replicas, "status.replicas"},
		{"updatedReplicas", s.UpdatedReplicas, s.Replicas, "status.replicas"},
		{"availableReplicas", s.AvailableReplicas, s.Replicas, "status.replicas"},
		{"availableReplicas", s.AvailableReplicas, s.ReadyReplicas, "status.readyReplicas"},
	} {
		if c.value > c.most {
			errs = append(errs, field.Invalid(path.Child(c.name), c.value, "cannot be greater than "+c.of))
		}
	}
	return errs
}

func columns() []resource.Column[set] {
	out := []resource.Column[set]{
		resource.NameColumn[set](),
		{Name: "Ready", Description: "Number of the pod with ready state",
			Cell: resource.Cell(func(s *set) any {
				return fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, 0))
			})},
		resource.AgeColumn[set](),
	}
	return append(out, resource.TemplateColumns(func(s *set) *corev1.PodTemplateSpec { return &s.Spec.Template })...)
}

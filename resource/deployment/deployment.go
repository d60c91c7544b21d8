// Package deployment defines the Deployment.
//
// Job: what the API server knows of deployments, and their retired versions.
//
// Not its job: the template (semantics/podspec), rolling out (controller).
//
// Invariants: the selector never changes; a retired version read back is what
// was written.
package deployment

import (
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the Deployment.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[appsv1.Deployment]{
		Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments",
		Short: []string{"deploy"}, Categories: []string{"all"},
		Default: setDefaults,
		Prepare: func(_ *resource.Request, next, prev *appsv1.Deployment) {
			next.Status = appsv1.DeploymentStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(d *appsv1.Deployment) any { return []any{&d.Spec, d.Annotations} },
		Validate:   validate,
		Warnings: func(next, prev *appsv1.Deployment) []string {
			if prev != nil && prev.Generation == next.Generation {
				return nil
			}
			return podspec.TemplateWarnings(&next.Spec.Template, field.NewPath("spec", "template"))
		},
		Subs: []resource.Sub[appsv1.Deployment]{resource.StatusSub(func(next, prev *appsv1.Deployment) {
			next.Spec, next.Labels = *prev.Spec.DeepCopy(), prev.Labels
		}, validateStatus, "metadata.labels")},
		Scale: &resource.Scale[appsv1.Deployment]{
			Get: func(d *appsv1.Deployment) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
				return &autoscalingv1.ScaleSpec{Replicas: *d.Spec.Replicas},
					&autoscalingv1.ScaleStatus{Replicas: d.Status.Replicas, Selector: podspec.ScaleSelector(d.Spec.Selector)}
			},
			Set:  func(d *appsv1.Deployment, n int32) { d.Spec.Replicas = &n },
			Path: "spec.replicas",
		},
		Columns:       columns(),
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also:          versions(),
	})
}

// Defaults of the stored version.
func setDefaults(d *appsv1.Deployment) {
	s := &d.Spec
	podspec.DefaultTemplate(&s.Template)
	fill(&s.Replicas, 1)
	fill(&s.RevisionHistoryLimit, 10)
	fill(&s.ProgressDeadlineSeconds, 600)
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if s.Strategy.RollingUpdate == nil {
			s.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		r := s.Strategy.RollingUpdate
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = ptr.To(intstr.FromString("25%"))
		}
		if r.MaxSurge == nil {
			r.MaxSurge = ptr.To(intstr.FromString("25%"))
		}
	}
}

func fill[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func validate(next, prev *appsv1.Deployment) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := podspec.NonNegative(path, map[string]int32{"replicas": ptr.Deref(s.Replicas, 0)})
	errs = append(errs, podspec.Selector(s.Selector, "deployment", path.Child("selector"))...)
	errs = append(errs, podspec.LongRunning(&s.Template, s.Selector, path)...)
	errs = append(errs, podspec.NoDeadline(&s.Template, "ReplicaSet", path.Child("template"))...)
	errs = append(errs, validateStrategy(&s.Strategy, path.Child("strategy"))...)
	errs = append(errs, podspec.NonNegative(path, map[string]int32{
		"minReadySeconds":         s.MinReadySeconds,
		"revisionHistoryLimit":    ptr.Deref(s.RevisionHistoryLimit, 0),
		"progressDeadlineSeconds": ptr.Deref(s.ProgressDeadlineSeconds, 0),
	})...)
	if d := s.ProgressDeadlineSeconds; d != nil && *d <= s.MinReadySeconds {
		errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *d, "must be greater than minReadySeconds"))
	}
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Selector, prev.Spec.Selector, path.Child("selector"))...)
	}
	return errs
}

func validateStrategy(s *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	at, r := path.Child("rollingUpdate"), s.RollingUpdate
	switch {
	case s.Type == appsv1.RecreateDeploymentStrategyType:
		if r != nil {
			return field.ErrorList{field.Forbidden(at, "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case s.Type != appsv1.RollingUpdateDeploymentStrategyType:
		return field.ErrorList{field.NotSupported(path, s, []appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	case r == nil:
		return field.ErrorList{field.Required(at, "this should be defaulted and never be nil")}
	}
	errs := podspec.IntOrPercent(r.MaxUnavailable, at.Child("maxUnavailable"))
	errs = append(errs, podspec.IntOrPercent(r.MaxSurge, at.Child("maxSurge"))...)
	if podspec.IsZero(r.MaxUnavailable) && podspec.IsZero(r.MaxSurge) {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, podspec.AtMostAll(r.MaxUnavailable, at.Child("maxUnavailable"))...)
}

func validateStatus(next, prev *appsv1.Deployment) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := apivalidation.ValidateNonnegativeField(s.ObservedGeneration, path.Child("observedGeneration"))
	errs = append(errs, podspec.NonNegative(path, map[string]int32{
		"replicas": s.Replicas, "updatedReplicas": s.UpdatedReplicas, "readyReplicas": s.ReadyReplicas,
		"availableReplicas": s.AvailableReplicas, "unavailableReplicas": s.UnavailableReplicas,
		"terminatingReplicas": ptr.Deref(s.TerminatingReplicas, 0), "collisionCount": ptr.Deref(s.CollisionCount, 0),
	})...)
	for _, c := range []struct {
		name        string
		value, most int32
		of          string
	}{
		{"updatedReplicas", s.UpdatedReplicas, s.Replicas, "status.replicas"},
		{"readyReplicas", s.ReadyReplicas, s.Replicas, "status.replicas"},
		{"availableReplicas", s.AvailableReplicas, s.Replicas, "status.replicas"},
		{"availableReplicas", s.AvailableReplicas, s.ReadyReplicas, "readyReplicas"},
	} {
		if c.value > c.most {
			errs = append(errs, field.Invalid(path.Child(c.name), c.value, "cannot be greater than "+c.of))
		}
	}
	if prev != nil && ptr.Deref(s.CollisionCount, math.MinInt32) < ptr.Deref(prev.Status.CollisionCount, math.MinInt32) {
		errs = append(errs, field.Invalid(path.Child("collisionCount"), ptr.Deref(s.CollisionCount, 0), "cannot be decremented"))
	}
	return errs
}

func columns() []resource.Column[appsv1.Deployment] {
	cell := resource.Cell[appsv1.Deployment]
	out := []resource.Column[appsv1.Deployment]{
		resource.NameColumn[appsv1.Deployment](),
		{Name: "Ready", Description: "Number of the pod with ready state",
			Cell: cell(func(d *appsv1.Deployment) any {
				return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 0))
			})},
		{Name: "Up-to-date", Description: resource.Doc(appsv1.DeploymentStatus{}, "updatedReplicas"),
			Cell: cell(func(d *appsv1.Deployment) any { return int64(d.Status.UpdatedReplicas) })},
		{Name: "Available", Description: resource.Doc(appsv1.DeploymentStatus{}, "availableReplicas"),
			Cell: cell(func(d *appsv1.Deployment) any { return int64(d.Status.AvailableReplicas) })},
		resource.AgeColumn[appsv1.Deployment](),
	}
	out = append(out, resource.TemplateColumns(func(d *appsv1.Deployment) *corev1.PodTemplateSpec { return &d.Spec.Template })...)
	return append(out, resource.Column[appsv1.Deployment]{
		Name: "Selector", Wide: true, Description: resource.Doc(appsv1.DeploymentSpec{}, "selector"),
		Cell: cell(func(d *appsv1.Deployment) any { return podspec.ScaleSelector(d.Spec.Selector) }),
	})
}

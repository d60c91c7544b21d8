// Package replicaset defines the ReplicaSet.
//
// Job: what the API server knows of replica sets, and their retired versions.
//
// Not its job: the template (semantics/podspec), making pods (controller).
//
// Invariants: the selector never changes.
package replicaset

import (
	appsv1 "k8s.io/api/apps/v1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"strconv"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the ReplicaSet.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[appsv1.ReplicaSet]{
		Group: "apps", Version: "v1", Kind: "ReplicaSet", Plural: "replicasets",
		Short: []string{"rs"}, Categories: []string{"all"},
		Default: func(r *appsv1.ReplicaSet) {
			podspec.DefaultTemplate(&r.Spec.Template)
			if r.Spec.Replicas == nil {
				r.Spec.Replicas = ptr.To[int32](1)
			}
		},
		Prepare: func(_ *resource.Request, next, prev *appsv1.ReplicaSet) {
			next.Status = appsv1.ReplicaSetStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(r *appsv1.ReplicaSet) any { return &r.Spec },
		Validate:   validate,
		Warnings: func(next, prev *appsv1.ReplicaSet) []string {
			if prev != nil && prev.Generation == next.Generation {
				return nil
			}
			return podspec.TemplateWarnings(&next.Spec.Template, field.NewPath("spec", "template"))
		},
		Subs: []resource.Sub[appsv1.ReplicaSet]{resource.StatusSub(func(next, prev *appsv1.ReplicaSet) {
			next.Spec = *prev.Spec.DeepCopy()
		}, validateStatus)},
		Scale: &resource.Scale[appsv1.ReplicaSet]{
			Get: func(r *appsv1.ReplicaSet) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
				return &autoscalingv1.ScaleSpec{Replicas: ptr.Deref(r.Spec.Replicas, 0)},
					&autoscalingv1.ScaleStatus{Replicas: r.Status.Replicas, Selector: podspec.ScaleSelector(r.Spec.Selector)}
			},
			Set:  func(r *appsv1.ReplicaSet, n int32) { r.Spec.Replicas = &n },
			Path: "spec.replicas",
		},
		Columns: columns(),
		Selectable: map[string]func(*appsv1.ReplicaSet) string{
			"status.replicas": func(r *appsv1.ReplicaSet) string { return strconv.Itoa(int(r.Status.Replicas)) },
		},
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also:          versions(),
	})
}

func versions() []resource.Version {
	gvk := func(group, version, kind string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
	}
	stored := gvk("apps", "v1", "ReplicaSet")
	b2 := resource.SameShape[appsv1beta2.ReplicaSet, appsv1.ReplicaSet](gvk("apps", "v1beta2", "ReplicaSet"), stored)
	b2.ScaleKind, b2.Orphans = gvk("apps", "v1beta2", "Scale"), true
	ext := resource.SameShape[extensionsv1beta1.ReplicaSet, appsv1.ReplicaSet](gvk("extensions", "v1beta1", "ReplicaSet"), stored)
	ext.ScaleKind, ext.Orphans = gvk("extensions", "v1beta1", "Scale"), true
	ext.Default = func(obj api.Object) {
		r := obj.(*extensionsv1beta1.ReplicaSet)
		podspec.SelectorFromLabels(&r.ObjectMeta, &r.Spec.Selector, &r.Spec.Template)
	}
	return []resource.Version{b2, ext}
}

func validate(next, prev *appsv1.ReplicaSet) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := podspec.NonNegative(path, map[string]int32{"replicas": ptr.Deref(s.Replicas, 0), "minReadySeconds": s.MinReadySeconds})
	errs = append(errs, podspec.Selector(s.Selector, "replicaset", path.Child("selector"))...)
	errs = append(errs, podspec.LongRunning(&s.Template, s.Selector, path)...)
	errs = append(errs, podspec.NoDeadline(&s.Template, "ReplicaSet", path.Child("template"))...)
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Selector, prev.Spec.Selector, path.Child("selector"))...)
	}
	return errs
}

func validateStatus(next, _ *appsv1.ReplicaSet) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := podspec.NonNegative(path, map[string]int32{
		"replicas": s.Replicas, "fullyLabeledReplicas": s.FullyLabeledReplicas, "readyReplicas": s.ReadyReplicas,
		"availableReplicas": s.AvailableReplicas, "terminatingReplicas": ptr.Deref(s.TerminatingReplicas, 0),
	})
	errs = append(errs, apivalidation.ValidateNonnegativeField(s.ObservedGeneration, path.Child("observedGeneration"))...)
	more := func(name string, value, most int32, of string) {
		if value > most {
			errs = append(errs, field.Invalid(path.Child(name), value, "cannot be greater than "+of))
		}
	}
	more("fullyLabeledReplicas", s.FullyLabeledReplicas, s.Replicas, "status.replicas")
	more("readyReplicas", s.ReadyReplicas, s.Replicas, "status.replicas")
	more("availableReplicas", s.AvailableReplicas, s.Replicas, "status.replicas")
	more("availableReplicas", s.AvailableReplicas, s.ReadyReplicas, "readyReplicas")
	return errs
}

func columns() []resource.Column[appsv1.ReplicaSet] {
	cell := resource.Cell[appsv1.ReplicaSet]
	out := []resource.Column[appsv1.ReplicaSet]{
		resource.NameColumn[appsv1.ReplicaSet](),
		{Name: "Desired", Type: "integer", Description: resource.Doc(appsv1.ReplicaSetSpec{}, "replicas"),
			Cell: cell(func(r *appsv1.ReplicaSet) any { return int64(ptr.Deref(r.Spec.Replicas, 0)) })},
		{Name: "Current", Type: "integer", Description: resource.Doc(appsv1.ReplicaSetStatus{}, "replicas"),
			Cell: cell(func(r *appsv1.ReplicaSet) any { return int64(r.Status.Replicas) })},
		{Name: "Ready", Type: "integer", Description: resource.Doc(appsv1.ReplicaSetStatus{}, "readyReplicas"),
			Cell: cell(func(r *appsv1.ReplicaSet) any { return int64(r.Status.ReadyReplicas) })},
		resource.AgeColumn[appsv1.ReplicaSet](),
	}
	out = append(out, resource.TemplateColumns(func(r *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &r.Spec.Template })...)
	return append(out, resource.Column[appsv1.ReplicaSet]{
		Name: "Selector", Wide: true, Description: resource.Doc(appsv1.ReplicaSetSpec{}, "selector"),
		Cell: cell(func(r *appsv1.ReplicaSet) any { return resource.SelectorCell(r.Spec.Selector) }),
	})
}

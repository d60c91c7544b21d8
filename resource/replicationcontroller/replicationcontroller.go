// Package replicationcontroller defines the ReplicationController.
//
// Job: what the API server knows of replication controllers.
//
// Not its job: the template (semantics/podspec), making pods (controller).
//
// Invariants: status changes only through its subresource.
package replicationcontroller

import (
	"maps"
	"strconv"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the ReplicationController.
func Kind() resource.Kind {
	type rc = corev1.ReplicationController
	return resource.Erase(&resource.Def[rc]{
		Version: "v1", Kind: "ReplicationController", Plural: "replicationcontrollers",
		Prefix: "controllers", Short: []string{"rc"}, Categories: []string{"all"},
		Default: setDefaults,
		Prepare: func(_ *resource.Request, next, prev *rc) {
			next.Status = corev1.ReplicationControllerStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(r *rc) any { return &r.Spec },
		Validate:   validate,
		Warnings: func(next, prev *rc) []string {
			if next.Spec.Template == nil || (prev != nil && prev.Generation == next.Generation) {
				return nil
			}
			return podspec.TemplateWarnings(next.Spec.Template, field.NewPath("spec", "template"))
		},
		Subs: []resource.Sub[rc]{resource.StatusSub(func(next, prev *rc) { next.Spec = *prev.Spec.DeepCopy() }, validateStatus)},
		Scale: &resource.Scale[rc]{
			Get: func(r *rc) (*autoscalingv1.ScaleSpec, *autoscalingv1.ScaleStatus) {
				return &autoscalingv1.ScaleSpec{Replicas: ptr.Deref(r.Spec.Replicas, 0)},
					&autoscalingv1.ScaleStatus{Replicas: r.Status.Replicas, Selector: labels.SelectorFromSet(r.Spec.Selector).String()}
			},
			Set:  func(r *rc, n int32) { r.Spec.Replicas = &n },
			Path: "spec.replicas",
		},
		Columns: columns(),
		Selectable: map[string]func(*rc) string{
			"status.replicas": func(r *rc) string { return strconv.Itoa(int(r.Status.Replicas)) },
		},
		Unconditional: true,
		Orphans:       true,
		ResetFields:   []string{"status"},
	})
}

func setDefaults(r *corev1.ReplicationController) {
	if r.Spec.Replicas == nil {
		r.Spec.Replicas = ptr.To[int32](1)
	}
	t := r.Spec.Template
	if t == nil {
		return
	}
	podspec.DefaultTemplate(t)
	if t.Labels == nil {
		return
	}
	if len(r.Spec.Selector) == 0 {
		r.Spec.Selector = maps.Clone(t.Labels)
	}
	if len(r.Labels) == 0 {
		r.Labels = maps.Clone(t.Labels)
	}
}

func validate(next, _ *corev1.ReplicationController) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := podspec.NonNegative(path, map[string]int32{"replicas": ptr.Deref(s.Replicas, 0), "minReadySeconds": s.MinReadySeconds})
	if len(s.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	at := path.Child("template")
	if s.Template == nil {
		return append(errs, field.Required(at, ""))
	}
	errs = append(errs, podspec.Matches(s.Template, labels.SelectorFromSet(s.Selector), at)...)
	errs = append(errs, podspec.ValidateTemplate(s.Template, at)...)
	if p := s.Template.Spec.RestartPolicy; p != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("spec", "restartPolicy"), p, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	return append(errs, podspec.NoDeadline(s.Template, "ReplicationController", at)...)
}

func validateStatus(next, _ *corev1.ReplicationController) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := podspec.NonNegative(path, map[string]int32{
		"replicas": s.Replicas, "fullyLabeledReplicas": s.FullyLabeledReplicas,
		"readyReplicas": s.ReadyReplicas, "availableReplicas": s.AvailableReplicas,
	})
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

func columns() []resource.Column[corev1.ReplicationController] {
	type rc = corev1.ReplicationController
	cell := resource.Cell[rc]
	spec, status := corev1.ReplicationControllerSpec{}, corev1.ReplicationControllerStatus{}
	out := []resource.Column[rc]{
		resource.NameColumn[rc](),
		{Name: "Desired", Type: "integer", Description: resource.Doc(spec, "replicas"), Cell: cell(func(r *rc) any { return int64(ptr.Deref(r.Spec.Replicas, 0)) })},
		{Name: "Current", Type: "integer", Description: resource.Doc(status, "replicas"), Cell: cell(func(r *rc) any { return int64(r.Status.Replicas) })},
		{Name: "Ready", Type: "integer", Description: resource.Doc(status, "readyReplicas"), Cell: cell(func(r *rc) any { return int64(r.Status.ReadyReplicas) })},
		resource.AgeColumn[rc](),
	}
	out = append(out, resource.TemplateColumns(func(r *rc) *corev1.PodTemplateSpec { return r.Spec.Template })...)
	return append(out, resource.Column[rc]{
		Name: "Selector", Wide: true, Description: resource.Doc(spec, "selector"),
		Cell: cell(func(r *rc) any { return resource.LabelsCell(r.Spec.Selector) }),
	})
}

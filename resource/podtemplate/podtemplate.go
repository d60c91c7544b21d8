// Package podtemplate defines the PodTemplate.
//
// Job: what the API server knows of pod templates that stand alone.
//
// Not its job: the template itself (semantics/podspec).
//
// Invariants: none beyond the template's own.
package podtemplate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the PodTemplate.
func Kind() resource.Kind {
	cell := resource.Cell[corev1.PodTemplate]
	columns := []resource.Column[corev1.PodTemplate]{resource.NameColumn[corev1.PodTemplate]()}
	for _, c := range resource.TemplateColumns(func(t *corev1.PodTemplate) *corev1.PodTemplateSpec { return &t.Template }) {
		c.Wide = false
		columns = append(columns, c)
	}
	columns = append(columns, resource.Column[corev1.PodTemplate]{
		Name: "Pod Labels", Description: "The labels for the pod template.",
		Cell: cell(func(t *corev1.PodTemplate) any { return labels.FormatLabels(t.Template.Labels) }),
	})
	return resource.Erase(&resource.Def[corev1.PodTemplate]{
		Version: "v1", Kind: "PodTemplate", Plural: "podtemplates",
		Default:    func(t *corev1.PodTemplate) { podspec.DefaultTemplate(&t.Template) },
		Generation: func(t *corev1.PodTemplate) any { return &t.Template },
		Validate: func(next, _ *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplate(&next.Template, field.NewPath("template"))
		},
		Warnings: func(next, _ *corev1.PodTemplate) []string {
			return podspec.TemplateWarnings(&next.Template, field.NewPath("template"))
		},
		Columns:       columns,
		Unconditional: true,
	})
}

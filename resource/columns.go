package resource

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Doc gives the description of a field as the API documents it; obj is any
// struct of k8s.io/api.
func Doc(obj interface{ SwaggerDoc() map[string]string }, field string) string {
	return obj.SwaggerDoc()[field]
}

// NameColumn is the first column of every kind.
func NameColumn[T any]() Column[T] {
	return Column[T]{
		Name: "Name", Format: "name", Description: Doc(metav1.ObjectMeta{}, "name"),
		Cell: func(obj *T, _ time.Time) any { return any(obj).(metav1.Object).GetName() },
	}
}

// AgeColumn tells how long ago the object was created.
func AgeColumn[T any]() Column[T] {
	return Column[T]{
		Name: "Age", Description: Doc(metav1.ObjectMeta{}, "creationTimestamp"),
		Cell: func(obj *T, now time.Time) any { return Since(any(obj).(metav1.Object).GetCreationTimestamp(), now) },
	}
}

// Since words the time that passed since t, or "<unknown>".
func Since(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

// SinceMicro is Since for times of higher resolution.
func SinceMicro(t metav1.MicroTime, now time.Time) string {
	return Since(metav1.Time{Time: t.Time}, now)
}

// LabelsCell words a set of labels, or "<none>".
func LabelsCell(set map[string]string) string { return labels.FormatLabels(set) }

// SelectorCell words a label selector, or "<none>".
func SelectorCell(s *metav1.LabelSelector) string { return metav1.FormatLabelSelector(s) }

// ContainerCells gives the names and images of containers, comma separated.
func ContainerCells(containers []corev1.Container) (names, images string) {
	n, im := make([]string, len(containers)), make([]string, len(containers))
	for i := range containers {
		n[i], im[i] = containers[i].Name, containers[i].Image
	}
	return strings.Join(n, ","), strings.Join(im, ",")
}

// TemplateColumns are the wide columns of kinds that hold a pod template.
func TemplateColumns[T any](template func(*T) *corev1.PodTemplateSpec) []Column[T] {
	containers := func(obj *T) []corev1.Container {
		if t := template(obj); t != nil {
			return t.Spec.Containers
		}
		return nil
	}
	return []Column[T]{
		{
			Name: "Containers", Wide: true, Description: "Names of each container in the template.",
			Cell: func(obj *T, _ time.Time) any { names, _ := ContainerCells(containers(obj)); return names },
		},
		{
			Name: "Images", Wide: true, Description: "Images referenced by each container in the template.",
			Cell: func(obj *T, _ time.Time) any { _, images := ContainerCells(containers(obj)); return images },
		},
	}
}

// Cell makes a column's function of one that needs no clock.
func Cell[T any](f func(*T) any) func(*T, time.Time) any {
	return func(obj *T, _ time.Time) any { return f(obj) }
}

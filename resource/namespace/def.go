// Package namespace defines the Namespace kind.
//
// Job: defaults, rules and columns of core/v1 Namespace and its finalize and
// status subresources.
//
// Not its job: emptying a namespace that is being deleted (a controller's), and
// refusing new objects in it (admission's).
//
// Invariants: a namespace is Held as long as spec.finalizers names anyone; only
// the finalize subresource changes that list.
package namespace

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Namespace]{
		Version: "v1", Kind: "Namespace", Plural: "namespaces",
		Short: []string{"ns"}, ClusterScoped: true,
		Verbs: []string{"create", "delete", "get", "list", "patch", "update", "watch"},

		Default: setDefaults, Prepare: prepare, Validate: validate,
		Name: apivalidation.NameIsDNSLabel,
		Subs: []resource.Sub[corev1.Namespace]{
			{Name: "finalize", Prepare: prepareFinalize, Validate: validateFinalize, WriteOnly: true, NoPatch: true},
			{Name: "status", Prepare: prepareStatus, Validate: validateStatus, ResetFields: []string{"spec"}},
		},
		Columns: []resource.Column[corev1.Namespace]{
			resource.NameColumn[corev1.Namespace](),
			{
				Name: "Status", Description: "The status of the namespace",
				Cell: func(n *corev1.Namespace, _ time.Time) any { return string(n.Status.Phase) },
			},
			resource.AgeColumn[corev1.Namespace](),
		},
		Selectable: map[string]func(*corev1.Namespace) string{
			"status.phase": func(n *corev1.Namespace) string { return string(n.Status.Phase) },
			// An old spelling that clients may still send.
			"name": func(n *corev1.Namespace) string { return n.Name },
		},
		Unconditional: true,
		BeginDelete:   func(n *corev1.Namespace) { n.Status.Phase = corev1.NamespaceTerminating },
		Held:          func(n *corev1.Namespace) bool { return len(n.Spec.Finalizers) > 0 },
		ResetFields:   []string{"status"},
	})
}

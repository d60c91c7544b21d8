// Package componentstatus defines the ComponentStatus kind.
//
// Job: the shape and columns of core/v1 ComponentStatus.
//
// Not its job: asking components how they are (apiserver/virtual).
//
// Invariants: nothing is stored.
package componentstatus

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.ComponentStatus]{
		Version: "v1", Kind: "ComponentStatus", Plural: "componentstatuses",
		Short: []string{"cs"}, ClusterScoped: true, Virtual: true,
		Verbs:   []string{"get", "list"},
		Warning: "v1 ComponentStatus is deprecated in v1.19+",
		Columns: []resource.Column[corev1.ComponentStatus]{
			resource.NameColumn[corev1.ComponentStatus](),
			{
				Name: "Status", Description: "Status of the component conditions",
				Cell: func(s *corev1.ComponentStatus, _ time.Time) any {
					switch c := healthy(s); {
					case c == nil, c.Status == corev1.ConditionUnknown:
						return "Unknown"
					case c.Status == corev1.ConditionTrue:
						return "Healthy"
					}
					return "Unhealthy"
				},
			},
			{
				Name: "Message", Description: "Message of the component conditions",
				Cell: func(s *corev1.ComponentStatus, _ time.Time) any {
					if c := healthy(s); c != nil {
						return c.Message
					}
					return ""
				},
			},
			{
				Name: "Error", Description: "Error of the component conditions",
				Cell: func(s *corev1.ComponentStatus, _ time.Time) any {
					if c := healthy(s); c != nil {
						return c.Error
					}
					return ""
				},
			},
		},
	})
}

func healthy(s *corev1.ComponentStatus) *corev1.ComponentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == corev1.ComponentHealthy {
			return &s.Conditions[i]
		}
	}
	return nil
}

// Package flowschema defines the FlowSchema.
//
// Job: what the API server knows of flow schemas, in all versions there ever were.
//
// Not its job: classifying requests by them (apiserver/fairness).
//
// Invariants: the mandatory schemas keep their spec.
package flowschema

import (
	flowv1 "k8s.io/api/flowcontrol/v1"
	flowv1beta1 "k8s.io/api/flowcontrol/v1beta1"
	flowv1beta2 "k8s.io/api/flowcontrol/v1beta2"
	flowv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

type flowSchema = flowv1.FlowSchema

const defaultPrecedence = 1000

// Kind is the FlowSchema.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[flowSchema]{
		Group: flowv1.GroupName, Version: "v1", Kind: "FlowSchema", Plural: "flowschemas", ClusterScoped: true,
		Default: func(s *flowSchema) {
			if s.Spec.MatchingPrecedence == 0 {
				s.Spec.MatchingPrecedence = defaultPrecedence
			}
		},
		Prepare: func(_ *resource.Request, next, prev *flowSchema) {
			next.Status = flowv1.FlowSchemaStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation:    func(s *flowSchema) any { return &s.Spec },
		Validate:      validate,
		Subs:          []resource.Sub[flowSchema]{status()},
		Columns:       columns(),
		ResetFields:   []string{"status"},
		Unconditional: true,
		Also: []resource.Version{
			resource.SameShape[flowv1beta3.FlowSchema, flowSchema](gvk("v1beta3"), gvk("v1")),
			resource.SameShape[flowv1beta2.FlowSchema, flowSchema](gvk("v1beta2"), gvk("v1")),
			resource.SameShape[flowv1beta1.FlowSchema, flowSchema](gvk("v1beta1"), gvk("v1")),
		},
	})
}

func gvk(version string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: flowv1.GroupName, Version: version, Kind: "FlowSchema"}
}

func status() resource.Sub[flowSchema] {
	return resource.StatusSub(func(next, prev *flowSchema) {
		next.Spec = *prev.Spec.DeepCopy()
		metav1.ResetObjectMetaForStatus(next, prev)
	}, validateStatus, "metadata")
}

func columns() []resource.Column[flowSchema] {
	return []resource.Column[flowSchema]{
		resource.NameColumn[flowSchema](),
		{Name: "PriorityLevel", Description: resource.Doc(flowv1.PriorityLevelConfigurationReference{}, "name"),
			Cell: resource.Cell(func(s *flowSchema) any { return s.Spec.PriorityLevelConfiguration.Name })},
		{Name: "MatchingPrecedence", Description: resource.Doc(flowv1.FlowSchemaSpec{}, "matchingPrecedence"),
			Cell: resource.Cell(func(s *flowSchema) any { return int64(s.Spec.MatchingPrecedence) })},
		{Name: "DistinguisherMethod", Description: resource.Doc(flowv1.FlowSchemaSpec{}, "distinguisherMethod"),
			Cell: resource.Cell(func(s *flowSchema) any {
				if m := s.Spec.DistinguisherMethod; m != nil {
					return string(m.Type)
				}
				return "<none>"
			})},
		resource.AgeColumn[flowSchema](),
		{Name: "MissingPL", Description: "references a broken or non-existent PriorityLevelConfiguration", Cell: resource.Cell(dangling)},
	}
}

func dangling(s *flowSchema) any {
	for _, c := range s.Status.Conditions {
		if c.Type == flowv1.FlowSchemaConditionDangling {
			return string(c.Status)
		}
	}
	return "?"
}

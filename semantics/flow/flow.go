// Package flow is what several rooms must know alike of priority and fairness:
// the objects every cluster has, and how deep a shuffle shard may be dealt.
//
// Job: the mandatory and the suggested flow schemas and priority levels.
//
// Not its job: keeping them in the cluster, classifying (apiserver/fairness).
//
// Invariants: what is returned is a copy; the mandatory objects are the ones
// validation insists on.
package flow

import (
	"math"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
)

// Objects are flow schemas and the priority levels they name.
type Objects struct {
	Levels  []*flowv1.PriorityLevelConfiguration
	Schemas []*flowv1.FlowSchema
}

// Mandatory are the objects without which requests could not be classified.
// Changes to them are undone.
func Mandatory() Objects {
	return copied(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.MandatoryFlowSchemas)
}

// Suggested are the objects a cluster begins with; users may change them.
func Suggested() Objects {
	return copied(bootstrap.SuggestedPriorityLevelConfigurations, bootstrap.SuggestedFlowSchemas)
}

func copied(levels []*flowv1.PriorityLevelConfiguration, schemas []*flowv1.FlowSchema) Objects {
	var o Objects
	for _, l := range levels {
		o.Levels = append(o.Levels, l.DeepCopy())
	}
	for _, s := range schemas {
		o.Schemas = append(o.Schemas, s.DeepCopy())
	}
	return o
}

// MandatoryLevel returns the mandatory level of that name, or nil.
func MandatoryLevel(name string) *flowv1.PriorityLevelConfiguration {
	for _, l := range bootstrap.MandatoryPriorityLevelConfigurations {
		if l.Name == name {
			return l.DeepCopy()
		}
	}
	return nil
}

// MandatorySchema returns the mandatory flow schema of that name, or nil.
func MandatorySchema(name string) *flowv1.FlowSchema {
	for _, s := range bootstrap.MandatoryFlowSchemas {
		if s.Name == name {
			return s.DeepCopy()
		}
	}
	return nil
}

// MaxHashBits is how many bits of a flow's hash a hand may use up.
const MaxHashBits = 60

// EntropyBits is how many bits dealing a hand out of so many queues uses up.
func EntropyBits(queues, hand int32) int {
	return int(math.Ceil(math.Log2(float64(queues)) * float64(hand)))
}

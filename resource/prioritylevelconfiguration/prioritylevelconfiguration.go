// Package prioritylevelconfiguration defines the PriorityLevelConfiguration.
//
// Job: what the API server knows of priority levels, in all versions there ever
// were.
//
// Not its job: limiting requests by them (apiserver/fairness).
//
// Invariants: the mandatory levels keep their spec, exempt's own part excepted; a
// share of zero survives the versions that cannot tell it from none.
package prioritylevelconfiguration

import (
	flowv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
)

type level = flowv1.PriorityLevelConfiguration

const (
	defaultShares  = 30
	defaultHand    = 8
	defaultQueues  = 64
	defaultLengths = 50
)

// Kind is the PriorityLevelConfiguration.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[level]{
		Group: flowv1.GroupName, Version: "v1", Kind: "PriorityLevelConfiguration", Plural: "prioritylevelconfigurations",
		ClusterScoped: true,
		Default:       setDefaults,
		Prepare: func(_ *resource.Request, next, prev *level) {
			next.Status = flowv1.PriorityLevelConfigurationStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation:    func(l *level) any { return &l.Spec },
		ValidateAs:    validate,
		Subs:          []resource.Sub[level]{status()},
		Columns:       columns(),
		ResetFields:   []string{"status"},
		Unconditional: true,
		Also:          versions(),
	})
}

func setDefaults(l *level) {
	if e := l.Spec.Exempt; e != nil {
		e.NominalConcurrencyShares = or(e.NominalConcurrencyShares, 0)
		e.LendablePercent = or(e.LendablePercent, 0)
	}
	lim := l.Spec.Limited
	if lim == nil {
		return
	}
	lim.NominalConcurrencyShares = or(lim.NominalConcurrencyShares, defaultShares)
	lim.LendablePercent = or(lim.LendablePercent, 0)
	if q := lim.LimitResponse.Queuing; q != nil {
		q.HandSize = orElse(q.HandSize, defaultHand)
		q.Queues = orElse(q.Queues, defaultQueues)
		q.QueueLengthLimit = orElse(q.QueueLengthLimit, defaultLengths)
	}
}

func or(p *int32, fallback int32) *int32 {
	if p == nil {
		return ptr.To(fallback)
	}
	return p
}

func orElse(n, fallback int32) int32 {
	if n == 0 {
		return fallback
	}
	return n
}

func status() resource.Sub[level] {
	return resource.StatusSub(func(next, prev *level) {
		next.Spec = *prev.Spec.DeepCopy()
		metav1.ResetObjectMetaForStatus(next, prev)
	}, validateStatus, "metadata")
}

func columns() []resource.Column[level] {
	queuing := func(pick func(*flowv1.QueuingConfiguration) int32) func(*level) any {
		return func(l *level) any {
			if l.Spec.Limited == nil || l.Spec.Limited.LimitResponse.Queuing == nil {
				return "<none>"
			}
			return int64(pick(l.Spec.Limited.LimitResponse.Queuing))
		}
	}
	return []resource.Column[level]{
		resource.NameColumn[level](),
		{Name: "Type", Description: resource.Doc(flowv1.PriorityLevelConfigurationSpec{}, "type"),
			Cell: resource.Cell(func(l *level) any { return string(l.Spec.Type) })},
		{Name: "NominalConcurrencyShares", Description: resource.Doc(flowv1.LimitedPriorityLevelConfiguration{}, "nominalConcurrencyShares"),
			Cell: resource.Cell(func(l *level) any {
				if l.Spec.Limited == nil {
					return "<none>"
				}
				return int64(ptr.Deref(l.Spec.Limited.NominalConcurrencyShares, defaultShares))
			})},
		{Name: "Queues", Description: resource.Doc(flowv1.QueuingConfiguration{}, "queues"),
			Cell: resource.Cell(queuing(func(q *flowv1.QueuingConfiguration) int32 { return q.Queues }))},
		{Name: "HandSize", Description: resource.Doc(flowv1.QueuingConfiguration{}, "handSize"),
			Cell: resource.Cell(queuing(func(q *flowv1.QueuingConfiguration) int32 { return q.HandSize }))},
		{Name: "QueueLengthLimit", Description: resource.Doc(flowv1.QueuingConfiguration{}, "queueLengthLimit"),
			Cell: resource.Cell(queuing(func(q *flowv1.QueuingConfiguration) int32 { return q.QueueLengthLimit }))},
		resource.AgeColumn[level](),
	}
}

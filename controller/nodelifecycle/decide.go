package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watched are the conditions that a kubelet keeps up to date.
var watched = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// byCondition are the taints that conditions other than Ready bring when true.
var byCondition = []struct {
	condition corev1.NodeConditionType
	taint     string
}{
	{corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.TaintNodeNetworkUnavailable},
}

func condition(n *corev1.Node, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == kind {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// readiness is the node's Ready status; "" when it has never told.
func readiness(n *corev1.Node) corev1.ConditionStatus {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return ""
}

// silenced returns the conditions of a node that stopped posting.
func silenced(n *corev1.Node, now time.Time) []corev1.NodeCondition {
	out := slices.Clone(n.Status.Conditions)
	for _, kind := range watched {
		i := slices.IndexFunc(out, func(c corev1.NodeCondition) bool { return c.Type == kind })
		switch {
		case i < 0:
			out = append(out, corev1.NodeCondition{Type: kind, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated",
				Message: "Kubelet never posted node status.", LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now)})
		case out[i].Status != corev1.ConditionUnknown:
			out[i].Status, out[i].Reason, out[i].Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			out[i].LastTransitionTime = metav1.NewTime(now)
		}
	}
	return out
}

// eviction says what becomes of a node's NoExecute taints.
type eviction int

const (
	mayTaint   eviction = iota // the zone's limit allows one
	waitTaint                  // not now; those there are stay
	neverTaint                 // no node is ready at all
)

// taints returns the node's taints as they should be. Those that this loop
// does not manage stay as and where they are.
func taints(n *corev1.Node, e eviction, now time.Time) []corev1.Taint {
	want := wantedTaints(n, e, now)
	var out []corev1.Taint
	for _, t := range n.Spec.Taints {
		if !managed(&t) || slices.ContainsFunc(want, func(w corev1.Taint) bool { return w.MatchTaint(&t) }) {
			out = append(out, t)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(out, func(t corev1.Taint) bool { return t.MatchTaint(&w) }) {
			out = append(out, w)
		}
	}
	return out
}

func managed(t *corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	case corev1.TaintNodeUnschedulable:
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	return t.Effect == corev1.TaintEffectNoSchedule && slices.ContainsFunc(byCondition, func(b struct {
		condition corev1.NodeConditionType
		taint     string
	}) bool {
		return b.taint == t.Key
	})
}

func wantedTaints(n *corev1.Node, e eviction, now time.Time) []corev1.Taint {
	var want []corev1.Taint
	sched := func(key string) { want = append(want, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule}) }
	execute := func(key string) {
		has := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key && t.Effect == corev1.TaintEffectNoExecute })
		if e == mayTaint || e == waitTaint && has {
			at := metav1.NewTime(now)
			want = append(want, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute, TimeAdded: &at})
		}
	}
	switch readiness(n) {
	case corev1.ConditionFalse:
		sched(corev1.TaintNodeNotReady)
		execute(corev1.TaintNodeNotReady)
	case corev1.ConditionUnknown:
		sched(corev1.TaintNodeUnreachable)
		execute(corev1.TaintNodeUnreachable)
	case "":
		// Admission tainted it when it came; it has yet to tell how it is.
		for _, t := range n.Spec.Taints {
			if t.Key == corev1.TaintNodeNotReady {
				want = append(want, t)
			}
		}
	}
	for _, b := range byCondition {
		if c := condition(n, b.condition); c != nil && c.Status == corev1.ConditionTrue {
			sched(b.taint)
		}
	}
	if n.Spec.Unschedulable {
		sched(corev1.TaintNodeUnschedulable)
	}
	return want
}

// lacksExecute says whether a failed node has yet to get its NoExecute taint.
func lacksExecute(n *corev1.Node) bool {
	key := ""
	switch readiness(n) {
	case corev1.ConditionFalse:
		key = corev1.TaintNodeNotReady
	case corev1.ConditionUnknown:
		key = corev1.TaintNodeUnreachable
	}
	return key != "" && !slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key && t.Effect == corev1.TaintEffectNoExecute })
}

// zone counts the nodes of one zone.
type zone struct{ ready, failed int }

// Upstream's figures of how fast nodes may be tainted.
const (
	rate          = 0.1  // nodes a second
	secondaryRate = 0.01 // in a large zone of which much has failed
	unhealthy     = 0.55 // what "much" is
	largeZone     = 50
)

// speed returns how many of a zone's nodes may be tainted in a second.
func (z zone) speed() float64 {
	switch total := z.ready + z.failed; {
	case z.ready == 0:
		return rate // a zone that failed as a whole: others go on
	case z.failed <= 2 || float64(z.failed) < unhealthy*float64(total):
		return rate
	case total > largeZone:
		return secondaryRate
	}
	return 0
}

// zoneOf names the zone a node is in.
func zoneOf(n *corev1.Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + ":\x00:" + n.Labels[corev1.LabelTopologyZone]
}

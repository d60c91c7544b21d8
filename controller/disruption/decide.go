package disruption

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/semantics/pod"
)

// evictionWait is how long a pod whose eviction was approved may take to be
// seen as deleted, before it counts as healthy again.
const evictionWait = 2 * time.Minute

// scale is how many pods a controller means to have.
type scale func(p *corev1.Pod) (uid string, replicas int32, ok bool)

// expected returns how many pods there should be, and how many of them must stay healthy.
func expected(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, of scale) (count, healthy int32) {
	sum := func() int32 {
		// Pods of no known controller cannot be counted on.
		seen := map[string]int32{}
		for _, p := range pods {
			if uid, n, ok := of(p); ok {
				seen[uid] = n
			}
		}
		var total int32
		for _, n := range seen {
			total += n
		}
		return total
	}
	switch {
	case b.Spec.MaxUnavailable != nil:
		count = sum()
		m, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(count), true)
		if err != nil {
			return count, count
		}
		return count, max(0, count-int32(m))
	case b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.Int:
		return int32(len(pods)), b.Spec.MinAvailable.IntVal
	case b.Spec.MinAvailable != nil:
		count = sum()
		m, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, int(count), true)
		if err != nil {
			return count, count
		}
		return count, int32(m)
	}
	return int32(len(pods)), 0
}

// disrupted keeps the evictions under way that the mirror does not show yet,
// and says when to look again.
func disrupted(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, now time.Time) (map[string]metav1.Time, time.Duration) {
	out := map[string]metav1.Time{}
	var again time.Duration
	for _, p := range pods {
		at, ok := b.Status.DisruptedPods[p.Name]
		if !ok || p.DeletionTimestamp != nil {
			continue
		}
		left := at.Add(evictionWait).Sub(now)
		if left <= 0 {
			continue
		}
		out[p.Name] = at
		if again == 0 || left < again {
			again = left
		}
	}
	return out, again
}

// status computes the budget's status; again says when time alone changes it.
func status(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod, of scale, now time.Time) (policyv1.PodDisruptionBudgetStatus, time.Duration) {
	going, again := disrupted(b, pods, now)
	count, wanted := expected(b, pods, of)
	var healthy int32
	for _, p := range pods {
		if _, gone := going[p.Name]; !gone && p.DeletionTimestamp == nil && pod.Ready(p) {
			healthy++
		}
	}
	allowed := max(0, healthy-wanted)
	if count <= 0 {
		allowed = 0
	}
	s := *b.Status.DeepCopy()
	s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.DisruptionsAllowed = healthy, wanted, count, allowed
	s.ObservedGeneration, s.DisruptedPods = b.Generation, going
	if len(going) == 0 {
		s.DisruptedPods = nil
	}
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, ObservedGeneration: b.Generation, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason}
	if allowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	s.Conditions = slices.Clone(s.Conditions)
	c.LastTransitionTime = metav1.NewTime(now)
	meta.SetStatusCondition(&s.Conditions, c)
	return s, again
}

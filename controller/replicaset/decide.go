package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/semantics/pod"
)

// burst is how many pods one pass creates or deletes at most.
const burst = 500

// plan is what a pass does to the pods.
type plan struct {
	create int
	remove []*corev1.Pod
}

// decide compares wish and pods: active are the ReplicaSet's own active pods,
// siblings how many pods of the same top owner run on each node.
func decide(wanted int, active []*corev1.Pod, siblings map[string]int, now time.Time) plan {
	diff := len(active) - wanted
	switch {
	case diff < 0:
		return plan{create: min(-diff, burst)}
	case diff > 0:
		diff = min(diff, burst)
		if diff < len(active) {
			active = ranked(active, siblings, now)
		}
		return plan{remove: active[:diff]}
	}
	return plan{}
}

// ranked sorts pods by how little it hurts to lose them, least first.
func ranked(pods []*corev1.Pod, siblings map[string]int, now time.Time) []*corev1.Pod {
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		aReady, bReady := pod.Ready(a), pod.Ready(b)
		if c := cmp.Or(
			boolean(a.Spec.NodeName != "", b.Spec.NodeName != ""),
			cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
			boolean(aReady, bReady),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(siblings[b.Spec.NodeName], siblings[a.Spec.NodeName]),
		); c != 0 {
			return c
		}
		if aReady && bReady {
			if c := newerFirst(readySince(a), readySince(b), a, b, now); c != 0 {
				return c
			}
		}
		if c := moreRestartsFirst(a, b); c != 0 {
			return c
		}
		return newerFirst(a.CreationTimestamp, b.CreationTimestamp, a, b, now)
	})
	return pods
}

func boolean(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func deletionCost(p *corev1.Pod) int32 {
	s := p.Annotations[corev1.PodDeletionCost]
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func readySince(p *corev1.Pod) metav1.Time {
	if c := pod.Condition(&p.Status, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime
	}
	return metav1.Time{}
}

// newerFirst compares ages on a logarithmic scale, so that among pods about
// equally old those to go are spread by chance, not by the second they started.
func newerFirst(at, bt metav1.Time, a, b *corev1.Pod, now time.Time) int {
	if at.Equal(&bt) {
		return 0
	}
	if at.IsZero() || bt.IsZero() {
		return boolean(bt.IsZero(), at.IsZero())
	}
	if c := cmp.Compare(magnitude(now.Sub(at.Time)), magnitude(now.Sub(bt.Time))); c != 0 {
		return c
	}
	return cmp.Compare(a.UID, b.UID)
}

func magnitude(age time.Duration) int64 {
	if age <= 0 {
		return -1
	}
	return int64(math.Log2(float64(age)))
}

func moreRestartsFirst(a, b *corev1.Pod) int {
	ar, as := restarts(a)
	br, bs := restarts(b)
	return cmp.Or(cmp.Compare(br, ar), cmp.Compare(bs, as))
}

func restarts(p *corev1.Pod) (regular, sidecar int32) {
	for _, s := range p.Status.ContainerStatuses {
		regular = max(regular, s.RestartCount)
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; pod.Sidecar(c) {
			if s := pod.ContainerStatus(p.Status.InitContainerStatuses, c.Name); s != nil {
				sidecar = max(sidecar, s.RestartCount)
			}
		}
	}
	return regular, sidecar
}

// status computes the status that pods and the pass's outcome call for.
func status(rs *appsv1.ReplicaSet, pods []*corev1.Pod, terminating int, failure error, diff int, now time.Time) appsv1.ReplicaSetStatus {
	s := *rs.Status.DeepCopy()
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	minReady := time.Duration(rs.Spec.MinReadySeconds) * time.Second
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = int32(len(pods)), 0, 0, 0
	for _, p := range pods {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if pod.Ready(p) {
			s.ReadyReplicas++
			if pod.Available(p, minReady, now) {
				s.AvailableReplicas++
			}
		}
	}
	t := int32(terminating)
	s.TerminatingReplicas = &t
	s.ObservedGeneration = rs.Generation
	failing := slices.IndexFunc(s.Conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case failure != nil && failing < 0:
		reason := "FailedDelete"
		if diff < 0 {
			reason = "FailedCreate"
		}
		s.Conditions = append(s.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: failure.Error()})
	case failure == nil && failing >= 0:
		s.Conditions = slices.Delete(s.Conditions, failing, failing+1)
	}
	return s
}

// nextAvailable returns how long until the next ready pod becomes available, 0 if none will by time alone.
func nextAvailable(pods []*corev1.Pod, minReady time.Duration, now time.Time) time.Duration {
	var next time.Duration
	for _, p := range pods {
		if !pod.Ready(p) || pod.Available(p, minReady, now) {
			continue
		}
		left := max(readySince(p).Add(minReady).Sub(now), time.Millisecond)
		if next == 0 || left < next {
			next = left
		}
	}
	return next
}

package deployment

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func semanticEqual(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

func replicas(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

func size(rs *appsv1.ReplicaSet) int32 {
	if rs == nil || rs.Spec.Replicas == nil {
		return 0
	}
	return *rs.Spec.Replicas
}

func sum(sets []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) int32 {
	var n int32
	for _, rs := range sets {
		if rs != nil {
			n += of(rs)
		}
	}
	return n
}

func current(rs *appsv1.ReplicaSet) int32   { return rs.Status.Replicas }
func available(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }

func rolling(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType
}

// bounds resolves maxSurge and maxUnavailable; both zero would stand still, so
// then one pod may be missing.
func bounds(d *appsv1.Deployment) (surge, unavailable int32) {
	if !rolling(d) || d.Spec.Strategy.RollingUpdate == nil {
		return 0, 0
	}
	u := d.Spec.Strategy.RollingUpdate
	zero := intstr.FromInt32(0)
	s, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxSurge, zero), int(replicas(d)), true)
	if err != nil {
		return 0, 1
	}
	m, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxUnavailable, zero), int(replicas(d)), false)
	if err != nil {
		return 0, 1
	}
	if s == 0 && m == 0 {
		m = 1
	}
	return int32(s), int32(m)
}

func maxSurge(d *appsv1.Deployment) int32 { s, _ := bounds(d); return s }

func maxUnavailable(d *appsv1.Deployment) int32 {
	if replicas(d) == 0 {
		return 0
	}
	_, m := bounds(d)
	return min(m, replicas(d))
}

// find returns the oldest ReplicaSet of the Deployment's present template, nil if there is none.
func find(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	sets = slices.SortedFunc(slices.Values(sets), byAge)
	for _, rs := range sets {
		if sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			return rs
		}
	}
	return nil
}

func without(sets []*appsv1.ReplicaSet, rs *appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, s := range sets {
		if rs == nil || s.UID != rs.UID {
			out = append(out, s)
		}
	}
	return out
}

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, s := range sets {
		if size(s) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// newSize is how large the new ReplicaSet may be now, all sets considered.
func newSize(d *appsv1.Deployment, all []*appsv1.ReplicaSet, now *appsv1.ReplicaSet) int32 {
	if !rolling(d) {
		return replicas(d)
	}
	total, most := sum(all, size), replicas(d)+maxSurge(d)
	if total >= most {
		return size(now)
	}
	return size(now) + min(most-total, replicas(d)-size(now))
}

// resize is a wish to give a ReplicaSet another size.
type resize struct {
	rs *appsv1.ReplicaSet
	to int32
}

// shrinkOld says how a rolling update may take from the old sets: first pods
// that are not available anyway, then as many as availability allows.
func shrinkOld(d *appsv1.Deployment, old []*appsv1.ReplicaSet, now *appsv1.ReplicaSet) []resize {
	old = active(old)
	if len(old) == 0 {
		return nil
	}
	slices.SortFunc(old, byAge)
	all := append(slices.Clone(old), now)
	floor := replicas(d) - maxUnavailable(d)
	budget := sum(all, size) - floor - (size(now) - available(now))
	if budget <= 0 {
		return nil
	}
	sizes := make([]int32, len(old))
	var taken int32
	for i, rs := range old {
		sizes[i] = size(rs)
		if n := min(budget-taken, size(rs)-available(rs)); n > 0 {
			sizes[i] -= n
			taken += n
		}
	}
	spare := sum(all, available) - floor
	for i := range old {
		if n := min(spare, sizes[i]); n > 0 {
			sizes[i] -= n
			spare -= n
		}
	}
	var out []resize
	for i, rs := range old {
		if sizes[i] != size(rs) {
			out = append(out, resize{rs, sizes[i]})
		}
	}
	return out
}

// proportional spreads a change of the Deployment's size over its sets during a
// rollout, larger sets taking more, the rest going to the largest. Every active
// set is named, changed or not: its size annotations may be out of date.
func proportional(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) []resize {
	sets = active(sets)
	var allowed int32
	if replicas(d) > 0 {
		allowed = replicas(d) + maxSurge(d)
	}
	add := allowed - sum(sets, size)
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		if c := cmp.Compare(size(b), size(a)); c != 0 {
			return c
		}
		if add > 0 { // growing favours the newer of equals, shrinking the older
			return byAge(b, a)
		}
		return byAge(a, b)
	})
	out := make([]resize, len(sets))
	var added int32
	for i, rs := range sets {
		out[i] = resize{rs, size(rs)}
		if add == 0 {
			continue
		}
		n := share(d, rs)
		if add > 0 {
			n = min(n, add-added)
		} else {
			n = max(n, add-added)
		}
		out[i].to += n
		added += n
	}
	if len(out) > 0 {
		out[0].to = max(0, out[0].to+add-added)
	}
	return out
}

// share is the part of the change that rs would take if sizes were no whole numbers, rounded.
func share(d *appsv1.Deployment, rs *appsv1.ReplicaSet) int32 {
	if replicas(d) == 0 {
		return -size(rs)
	}
	before, ok := annotatedSize(rs, annMax)
	if !ok || before == 0 {
		if before = d.Status.Replicas; before == 0 {
			return 0
		}
	}
	return int32(math.RoundToEven(float64(size(rs))*float64(replicas(d)+maxSurge(d))/float64(before))) - size(rs)
}

// saturated says that the rollout of rs is over, as far as sizes go.
func saturated(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	if rs == nil {
		return false
	}
	desired, ok := annotatedSize(rs, annDesired)
	return ok && size(rs) == replicas(d) && desired == replicas(d) && available(rs) == replicas(d)
}

// scaling says that the Deployment's size changed since its sets were sized.
func scaling(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) bool {
	for _, rs := range active(sets) {
		if n, ok := annotatedSize(rs, annDesired); ok && n != replicas(d) {
			return true
		}
	}
	return false
}

// theOne returns the only active set, or the newest when none is; nil when several are.
func theOne(now *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	all := slices.Clone(old)
	if now != nil {
		all = append(all, now)
	}
	act := active(all)
	switch {
	case len(act) == 1:
		return act[0]
	case len(act) > 1 || len(all) == 0:
		return nil
	case now != nil:
		return now
	}
	return slices.MaxFunc(all, byAge)
}

// outdated returns the old sets beyond the history limit that nothing needs.
func outdated(d *appsv1.Deployment, old []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	if d.Spec.RevisionHistoryLimit == nil || *d.Spec.RevisionHistoryLimit == math.MaxInt32 {
		return nil
	}
	alive := slices.DeleteFunc(slices.Clone(old), func(rs *appsv1.ReplicaSet) bool { return rs.DeletionTimestamp != nil })
	excess := len(alive) - int(*d.Spec.RevisionHistoryLimit)
	if excess <= 0 {
		return nil
	}
	slices.SortFunc(alive, func(a, b *appsv1.ReplicaSet) int {
		if c := cmp.Compare(revisionOf(a.Annotations), revisionOf(b.Annotations)); c != 0 {
			return c
		}
		return byAge(a, b)
	})
	return slices.DeleteFunc(alive[:excess], func(rs *appsv1.ReplicaSet) bool {
		return rs.Status.Replicas != 0 || size(rs) != 0 || rs.Generation > rs.Status.ObservedGeneration
	})
}

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func unset(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

func set(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	old := condition(s, c.Type)
	if old != nil && old.Status == c.Status && old.Reason == c.Reason {
		return
	}
	if old != nil && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	unset(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func newCondition(t appsv1.DeploymentConditionType, s corev1.ConditionStatus, reason, message string, now time.Time) appsv1.DeploymentCondition {
	at := metav1.NewTime(now)
	return appsv1.DeploymentCondition{Type: t, Status: s, LastUpdateTime: at, LastTransitionTime: at, Reason: reason, Message: message}
}

// status counts what the sets report.
func status(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, now *appsv1.ReplicaSet, at time.Time) appsv1.DeploymentStatus {
	s := appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation,
		Replicas:           sum(sets, current),
		ReadyReplicas:      sum(sets, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas }),
		AvailableReplicas:  sum(sets, available),
		CollisionCount:     d.Status.CollisionCount,
		Conditions:         slices.Clone(d.Status.Conditions),
	}
	s.UnavailableReplicas = max(0, sum(sets, size)-s.AvailableReplicas)
	if now != nil {
		s.UpdatedReplicas = now.Status.Replicas
	}
	known := true
	ending := sum(sets, func(rs *appsv1.ReplicaSet) int32 {
		if rs.Status.TerminatingReplicas == nil {
			known = false
			return 0
		}
		return *rs.Status.TerminatingReplicas
	})
	if known {
		s.TerminatingReplicas = &ending
	}
	if s.AvailableReplicas >= replicas(d)-maxUnavailable(d) {
		set(&s, newCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.", at))
	} else {
		set(&s, newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", at))
	}
	return s
}

// Reasons of the Progressing condition.
const (
	reasonCreated   = "NewReplicaSetCreated"
	reasonFound     = "FoundNewReplicaSet"
	reasonUpdated   = "ReplicaSetUpdated"
	reasonFailed    = "ReplicaSetCreateError"
	reasonAvailable = "NewReplicaSetAvailable"
	reasonTimedOut  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
	reasonResumed   = "DeploymentResumed"
)

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas == replicas(d) && s.Replicas == replicas(d) && s.AvailableReplicas == replicas(d) && s.ObservedGeneration >= d.Generation
}

func progressing(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	o := &d.Status
	return s.UpdatedReplicas > o.UpdatedReplicas || s.Replicas-s.UpdatedReplicas < o.Replicas-o.UpdatedReplicas ||
		s.ReadyReplicas > o.ReadyReplicas || s.AvailableReplicas > o.AvailableReplicas
}

func timedOut(d *appsv1.Deployment, s *appsv1.DeploymentStatus, at time.Time) bool {
	c := condition(s, appsv1.DeploymentProgressing)
	if !hasDeadline(d) || c == nil || c.Reason == reasonAvailable {
		return false
	}
	return c.Reason == reasonTimedOut || at.After(c.LastUpdateTime.Add(time.Duration(*d.Spec.ProgressDeadlineSeconds)*time.Second))
}

// progress adds to s how the rollout fares.
func progress(d *appsv1.Deployment, s *appsv1.DeploymentStatus, sets []*appsv1.ReplicaSet, now *appsv1.ReplicaSet, at time.Time) {
	if !hasDeadline(d) {
		unset(s, appsv1.DeploymentProgressing)
	}
	was := condition(&d.Status, appsv1.DeploymentProgressing)
	done := s.Replicas == s.UpdatedReplicas && was != nil && was.Reason == reasonAvailable
	if hasDeadline(d) && !done {
		who := fmt.Sprintf("Deployment %q", d.Name)
		if now != nil {
			who = fmt.Sprintf("ReplicaSet %q", now.Name)
		}
		switch {
		case complete(d, s):
			set(s, newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonAvailable, who+" has successfully progressed.", at))
		case progressing(d, s):
			c := newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, who+" is progressing.", at)
			if was != nil {
				if was.Status == corev1.ConditionTrue {
					c.LastTransitionTime = was.LastTransitionTime
				}
				unset(s, appsv1.DeploymentProgressing)
			}
			set(s, c)
		case timedOut(d, s, at):
			set(s, newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, who+" has timed out progressing.", at))
		}
	}
	if c := failure(sets, now); c != nil {
		set(s, *c)
	} else {
		unset(s, appsv1.DeploymentReplicaFailure)
	}
}

// failure returns the trouble of the new set, or else of any, as the Deployment's condition.
func failure(sets []*appsv1.ReplicaSet, now *appsv1.ReplicaSet) *appsv1.DeploymentCondition {
	if now != nil {
		sets = append([]*appsv1.ReplicaSet{now}, sets...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime}
			}
		}
	}
	return nil
}

// stuckIn returns when the deadline will have passed, and whether it can.
func stuckIn(d *appsv1.Deployment, s *appsv1.DeploymentStatus, at time.Time) (time.Duration, bool) {
	c := condition(&d.Status, appsv1.DeploymentProgressing)
	if !hasDeadline(d) || c == nil || complete(d, s) || c.Reason == reasonTimedOut || c.Reason == reasonAvailable {
		return 0, false
	}
	left := c.LastUpdateTime.Add(time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second).Sub(at)
	return max(left, 0) + time.Second, true
}

// create makes the ReplicaSet of the Deployment's present template, its size not yet set.
func create(d *appsv1.Deployment) *appsv1.ReplicaSet {
	t := d.Spec.Template.DeepCopy()
	h := hash(t, d.Status.CollisionCount)
	withHash := func(m map[string]string) map[string]string {
		out := map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: h}
		for k, v := range m {
			if k != appsv1.DefaultDeploymentUniqueLabelKey {
				out[k] = v
			}
		}
		return out
	}
	t.Labels = withHash(t.Labels)
	sel := d.Spec.Selector.DeepCopy()
	sel.MatchLabels = withHash(sel.MatchLabels)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: strings.Join([]string{d.Name, h}, "-"), Namespace: d.Namespace, Labels: t.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), MinReadySeconds: d.Spec.MinReadySeconds, Selector: sel, Template: *t},
	}
}

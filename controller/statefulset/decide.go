package statefulset

import (
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// view is what decisions are made on.
type view struct {
	set             *appsv1.StatefulSet
	current, update string // names of revisions' templates
	pods            map[int]*corev1.Pod
	now             time.Time
}

// step is what one pass does.
type step struct {
	create  []int         // ordinals
	restart []*corev1.Pod // ended pods, to be made again
	remove  []*corev1.Pod // scaled away
	replace []*corev1.Pod // of an old template
	mend    []*corev1.Pod // that have lost their labels
}

func (v *view) ordered() bool {
	return v.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
}

func (v *view) healthy(p *corev1.Pod) bool {
	return p != nil && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning && pod.Ready(p)
}

func (v *view) available(p *corev1.Pod) bool {
	return v.healthy(p) && pod.Available(p, time.Duration(v.set.Spec.MinReadySeconds)*time.Second, v.now)
}

// decide chooses the next step.
func (v *view) decide() step {
	var s step
	start, n := first(v.set), replicas(v.set)
	for i := start; i < start+n; i++ {
		p := v.pods[i]
		switch {
		case p == nil:
			s.create = append(s.create, i)
			if v.ordered() {
				return s
			}
		case p.DeletionTimestamp == nil && pod.Finished(p):
			s.restart = append(s.restart, p)
			if v.ordered() {
				return s
			}
		case v.ordered() && !v.available(p):
			return s
		case p.DeletionTimestamp == nil && drifted(p, i):
			s.mend = append(s.mend, p)
		}
	}
	if v.condemn(&s) {
		return s
	}
	v.roll(&s)
	return s
}

// condemn removes pods beyond the wished number, the highest first, and says
// whether the pass ends with that.
func (v *view) condemn(s *step) bool {
	start, n := first(v.set), replicas(v.set)
	var beyond []int
	for i := range v.pods {
		if i < start || i >= start+n {
			beyond = append(beyond, i)
		}
	}
	slices.Sort(beyond)
	slices.Reverse(beyond)
	sick := v.firstSick()
	for _, i := range beyond {
		p := v.pods[i]
		if v.ordered() && !v.available(p) && p != sick && p.DeletionTimestamp == nil {
			return true // one before it must recover, or go, first
		}
		if p.DeletionTimestamp != nil {
			if v.ordered() {
				return true
			}
			continue
		}
		s.remove = append(s.remove, p)
		if v.ordered() {
			return true
		}
	}
	return false
}

// firstSick is the pod of the lowest ordinal that is not available, nil if all are.
func (v *view) firstSick() *corev1.Pod {
	for _, i := range slices.Sorted(maps.Keys(v.pods)) {
		if !v.available(v.pods[i]) {
			return v.pods[i]
		}
	}
	return nil
}

// partition is the lowest ordinal that updates replace.
func (v *view) partition() int {
	if r := v.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return first(v.set) + int(*r.Partition)
	}
	return first(v.set)
}

// roll replaces pods of old templates, the highest ordinal first.
func (v *view) roll(s *step) {
	if v.set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType || len(s.create)+len(s.restart)+len(s.remove) > 0 {
		return
	}
	left := 1
	if r := v.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.MaxUnavailable != nil {
		if n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, replicas(v.set), false); err == nil {
			left = max(n, 1)
		}
	}
	start, n := first(v.set), replicas(v.set)
	for i := start; i < start+n; i++ {
		if !v.available(v.pods[i]) {
			left--
		}
	}
	for i := start + n - 1; i >= v.partition(); i-- {
		p := v.pods[i]
		old := p.Labels[controller.RevisionLabel] != v.update
		switch {
		case p.DeletionTimestamp != nil:
		case old && !v.available(p):
			s.replace = append(s.replace, p) // it serves nobody: nothing is lost
		case old && left > 0:
			s.replace = append(s.replace, p)
			left--
		case old:
			return
		}
		if v.ordered() && left <= 0 {
			return
		}
	}
}

// revisionFor names the template that a new pod of an ordinal gets.
func (v *view) revisionFor(ordinal int) string {
	if v.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType && ordinal < v.partition() {
		return v.current
	}
	return v.update
}

// status computes the status that the pods call for; current and update are
// the names of the revisions.
func (v *view) status(current, update string) appsv1.StatefulSetStatus {
	s := *v.set.Status.DeepCopy()
	s.ObservedGeneration = v.set.Generation
	s.CurrentRevision, s.UpdateRevision = current, update
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	for _, p := range v.pods {
		s.Replicas++
		if v.healthy(p) {
			s.ReadyReplicas++
			if v.available(p) {
				s.AvailableReplicas++
			}
		}
		if p.DeletionTimestamp != nil {
			continue
		}
		if p.Labels[controller.RevisionLabel] == v.current {
			s.CurrentReplicas++
		}
		if p.Labels[controller.RevisionLabel] == v.update {
			s.UpdatedReplicas++
		}
	}
	if v.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType && current != update &&
		s.UpdatedReplicas == s.Replicas && s.ReadyReplicas == s.Replicas && int(s.Replicas) == replicas(v.set) {
		s.CurrentRevision, s.CurrentReplicas = update, s.UpdatedReplicas
	}
	return s
}

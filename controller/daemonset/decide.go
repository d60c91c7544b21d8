package daemonset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// place is one node with the set's pods on it.
type place struct {
	name      string
	run, stay bool
	pods      []*corev1.Pod // the oldest first
}

// plan is what a pass does.
type plan struct {
	create []string // nodes
	remove []*corev1.Pod
	ended  []*corev1.Pod // those of remove that failed or succeeded
}

// places files pods under nodes; pods of nodes that are gone and were never
// bound are returned as lost.
func places(ds *appsv1.DaemonSet, nodes []*corev1.Node, pods []*corev1.Pod) (out []*place, lost []*corev1.Pod) {
	at := map[string]*place{}
	for _, n := range nodes {
		p := &place{name: n.Name}
		p.run, p.stay = fits(ds, n)
		at[n.Name] = p
		out = append(out, p)
	}
	for _, p := range pods {
		if here := at[nodeOf(p)]; here != nil {
			here.pods = append(here.pods, p)
		} else if p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
			lost = append(lost, p)
		}
	}
	for _, p := range out {
		slices.SortFunc(p.pods, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	}
	slices.SortFunc(out, func(a, b *place) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return out, lost
}

// view is what decisions are made on.
type view struct {
	ds     *appsv1.DaemonSet
	hash   string // of the template now
	places []*place
	now    time.Time
}

func (v *view) updated(p *corev1.Pod) bool {
	return p.Labels[controller.RevisionLabel] == v.hash
}

func (v *view) available(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && pod.Available(p, time.Duration(v.ds.Spec.MinReadySeconds)*time.Second, v.now)
}

// manage gives each node its one pod.
func (v *view) manage() plan {
	var out plan
	surge := v.surge() > 0
	for _, p := range v.places {
		switch {
		case p.run && len(p.pods) == 0:
			out.create = append(out.create, p.name)
		case !p.stay:
			for _, x := range p.pods {
				if x.DeletionTimestamp == nil {
					out.remove = append(out.remove, x)
				}
			}
		default:
			v.one(p, surge, &out)
		}
	}
	return out
}

// one takes ended and surplus pods from a node.
func (v *view) one(p *place, surge bool, out *plan) {
	var running []*corev1.Pod
	for _, x := range p.pods {
		switch {
		case x.DeletionTimestamp != nil:
		case pod.Finished(x):
			out.remove, out.ended = append(out.remove, x), append(out.ended, x)
		default:
			running = append(running, x)
		}
	}
	if len(running) < 2 {
		return
	}
	if surge && len(running) == 2 && v.updated(running[0]) != v.updated(running[1]) {
		// An update: the old one goes when the new one serves.
		old, next := running[0], running[1]
		if v.updated(old) {
			old, next = next, old
		}
		if v.available(next) || !v.available(old) {
			out.remove = append(out.remove, old)
		}
		return
	}
	out.remove = append(out.remove, running[1:]...)
}

// wanted counts the nodes that should have a pod.
func (v *view) wanted() int {
	n := 0
	for _, p := range v.places {
		if p.run {
			n++
		}
	}
	return n
}

func (v *view) surge() int {
	r := v.ds.Spec.UpdateStrategy.RollingUpdate
	if v.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType || r == nil || r.MaxSurge == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxSurge, v.wanted(), true)
	if err != nil {
		return 0
	}
	return n
}

func (v *view) unavailable() int {
	r := v.ds.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		if v.surge() > 0 {
			return 0
		}
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, v.wanted(), true)
	if err != nil {
		return 1
	}
	if n == 0 && v.surge() == 0 {
		return 1
	}
	return n
}

// update replaces pods of old templates as fast as the strategy allows.
func (v *view) update() plan {
	var out plan
	if v.ds.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return out
	}
	left, surge := v.unavailable(), v.surge()
	var old []*corev1.Pod
	for _, p := range v.places {
		if !p.run {
			continue
		}
		serving := slices.ContainsFunc(p.pods, v.available)
		var live []*corev1.Pod
		for _, x := range p.pods {
			if x.DeletionTimestamp == nil && !pod.Finished(x) {
				live = append(live, x)
			}
		}
		if !serving {
			left--
		}
		if len(p.pods) == 2 && len(live) > 0 {
			surge-- // a surge under way
		}
		if len(p.pods) != 1 || len(live) != 1 || v.updated(live[0]) {
			continue
		}
		if !serving {
			out.remove = append(out.remove, live[0]) // it serves nobody: nothing is lost
			continue
		}
		old = append(old, live[0])
	}
	for _, x := range old {
		switch {
		case surge > 0:
			out.create = append(out.create, nodeOf(x))
			surge--
		case left > 0 && v.surge() == 0:
			out.remove = append(out.remove, x)
			left--
		}
	}
	return out
}

// status computes the status that the places call for.
func (v *view) status() appsv1.DaemonSetStatus {
	s := *v.ds.Status.DeepCopy()
	s.ObservedGeneration = v.ds.Generation
	s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberMisscheduled = 0, 0, 0
	s.NumberReady, s.NumberAvailable, s.UpdatedNumberScheduled = 0, 0, 0
	for _, p := range v.places {
		switch {
		case !p.run && len(p.pods) > 0:
			s.NumberMisscheduled++
		case p.run:
			s.DesiredNumberScheduled++
			if len(p.pods) == 0 {
				continue
			}
			s.CurrentNumberScheduled++
			if slices.ContainsFunc(p.pods, pod.Ready) {
				s.NumberReady++
			}
			if slices.ContainsFunc(p.pods, v.available) {
				s.NumberAvailable++
			}
			if slices.ContainsFunc(p.pods, v.updated) {
				s.UpdatedNumberScheduled++
			}
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s
}

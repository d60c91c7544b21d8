package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// victims are the pods that would have to leave a node.
type victims struct {
	node       *node
	pods       []*info // most important first
	violations int     // of disruption budgets
}

// candidates bounds how many nodes are looked at closely: a tenth, at least a hundred.
func candidates(nodes int) int { return max(100, nodes/10) }

// makeRoom chooses whom to evict for i, nil if that helps nowhere. The cluster
// is as before when it returns.
func (c *cluster) makeRoom(i *info, k *class, d *diagnosis, budgets []*policyv1.PodDisruptionBudget) *victims {
	var found []*victims
	limit := candidates(d.nodes)
	for _, n := range d.helpable {
		if v := c.evictable(i, k, n, budgets); v != nil {
			found = append(found, v)
			if len(found) >= limit {
				break
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	return slices.MinFunc(found, gentler)
}

// evictable finds the fewest pods of lower priority whose leaving lets i onto n.
func (c *cluster) evictable(i *info, k *class, n *node, budgets []*policyv1.PodDisruptionBudget) *victims {
	var lower []*info
	for _, o := range n.pods {
		if priority(o.pod) < priority(i.pod) {
			lower = append(lower, o)
		}
	}
	if len(lower) == 0 {
		return nil
	}
	for _, o := range lower {
		c.dropPod(o.pod.UID)
	}
	k.catchUp(c)
	name := n.obj.Name
	if !k.takes(n) {
		for _, o := range lower {
			c.putPod(o, name)
		}
		k.catchUp(c)
		return nil
	}
	slices.SortFunc(lower, moreImportant)
	breaking, ok := split(lower, budgets)
	v := &victims{node: n}
	// Those whose leaving breaks a budget are spared first.
	spare := func(list []*info, costs int) {
		for _, o := range list {
			c.putPod(o, name)
			k.catchUp(c)
			if !k.takes(n) {
				c.dropPod(o.pod.UID)
				k.catchUp(c)
				v.pods = append(v.pods, o)
				v.violations += costs
			}
		}
	}
	spare(breaking, 1)
	spare(ok, 0)
	for _, o := range v.pods {
		c.putPod(o, name)
	}
	k.catchUp(c)
	if len(v.pods) == 0 {
		return nil
	}
	slices.SortFunc(v.pods, moreImportant)
	return v
}

func started(p *corev1.Pod) metav1.Time {
	if p.Status.StartTime != nil {
		return *p.Status.StartTime
	}
	return p.CreationTimestamp
}

func moreImportant(a, b *info) int {
	if c := cmp.Compare(priority(b.pod), priority(a.pod)); c != 0 {
		return c
	}
	x, y := started(a.pod), started(b.pod)
	return x.Compare(y.Time)
}

// split separates the pods whose eviction their budgets do not allow.
func split(pods []*info, budgets []*policyv1.PodDisruptionBudget) (breaking, ok []*info) {
	left := map[*policyv1.PodDisruptionBudget]int32{}
	for _, b := range budgets {
		left[b] = b.Status.DisruptionsAllowed
	}
	for _, o := range pods {
		broken := false
		for _, b := range budgets {
			if b.Namespace != o.pod.Namespace || len(o.pod.Labels) == 0 {
				continue
			}
			sel := selectorOf(b.Spec.Selector)
			if sel.Empty() || !sel.Matches(labels.Set(o.pod.Labels)) {
				continue
			}
			if _, going := b.Status.DisruptedPods[o.pod.Name]; going {
				continue
			}
			if left[b]--; left[b] < 0 {
				broken = true
			}
		}
		if broken {
			breaking = append(breaking, o)
		} else {
			ok = append(ok, o)
		}
	}
	return breaking, ok
}

// gentler compares what two nodes would lose.
func gentler(a, b *victims) int {
	sum := func(v *victims) (n int64) {
		for _, o := range v.pods {
			n += int64(priority(o.pod)) + math.MaxInt32 + 1
		}
		return n
	}
	if c := cmp.Or(
		cmp.Compare(a.violations, b.violations),
		cmp.Compare(priority(a.pods[0].pod), priority(b.pods[0].pod)),
		cmp.Compare(sum(a), sum(b)),
		cmp.Compare(len(a.pods), len(b.pods)),
	); c != 0 {
		return c
	}
	x, y := started(a.pods[0].pod), started(b.pods[0].pod)
	return cmp.Or(y.Compare(x.Time), cmp.Compare(a.node.at, b.node.at))
}

// mayPreempt says whether p, for which room may be kept, may evict others now;
// the text says why not.
func (c *cluster) mayPreempt(p *corev1.Pod, own *nomination) (bool, string) {
	if p.Spec.PreemptionPolicy != nil && *p.Spec.PreemptionPolicy == corev1.PreemptNever {
		return false, "not eligible due to preemptionPolicy=Never."
	}
	const leaving = "not eligible due to a terminating pod on the nominated node."
	if own != nil {
		for _, uid := range own.victims {
			if _, there := c.pods[uid]; there {
				return false, leaving
			}
		}
	}
	if name := p.Status.NominatedNodeName; name != "" {
		if n := c.byName[name]; n != nil {
			for _, o := range n.pods {
				if o.ending && priority(o.pod) < priority(p) && evictedByUs(o.pod) {
					return false, leaving
				}
			}
		}
	}
	return true, ""
}

func evictedByUs(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
		}
	}
	return false
}

func preemptionMessage(scheduler string) string {
	return fmt.Sprintf("%s: preempting to accommodate a higher priority pod", scheduler)
}

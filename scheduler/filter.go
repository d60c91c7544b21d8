package scheduler

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/semantics/taint"
)

// Why a node does not do, in upstream's words.
const (
	whyUnschedulable = "node(s) were unschedulable"
	whyName          = "node(s) didn't match the requested node name"
	whyTaint         = "node(s) had untolerated taint(s)"
	whyAffinity      = "node(s) didn't match Pod's node affinity/selector"
	whyPorts         = "node(s) didn't have free ports for the requested pod ports"
	whyPods          = "Too many pods"
	whyPodAffinity   = "node(s) didn't match pod affinity rules"
	whyAntiAffinity  = "node(s) didn't match pod anti-affinity rules"
	whyExistingAnti  = "node(s) didn't satisfy existing pods anti-affinity rules"
	whySpread        = "node(s) didn't match pod topology spread constraints"
	whySpreadLabel   = "node(s) didn't match pod topology spread constraints (missing required label)"
	whyVolumeNode    = "node(s) didn't match PersistentVolume's node affinity"
	whyBind          = "node(s) didn't find available persistent volumes to bind"
	whyZone          = "node(s) had no available volume zone"
	whyDevices       = "cannot allocate all claims"
	whyClaimNode     = "resourceclaim not available on the node"
	whyExclusive     = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)

// rejection is why one node does not do.
type rejection struct {
	reasons []string
	final   bool // no eviction of pods would help
	kind    cause
}

// cause is a set of what could make a rejected pod placeable.
type cause uint8

const (
	causeNode   cause = 1 << iota // another node, or other labels, taints …
	causeRoom                     // pods going away
	causePods                     // pods coming or changing
	causeVolume                   // claims and volumes
)

// static judges what depends on node and pod alone. "" is no objection.
func (k *class) static(n *node) string {
	p, obj := k.sample.pod, n.obj
	if n.gone {
		return whyName
	}
	if k.only != "" && obj.Name != k.only {
		return whyAffinity
	}
	if obj.Spec.Unschedulable && !taint.Tolerated(p.Spec.Tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}) {
		return whyUnschedulable
	}
	for i := range obj.Spec.Taints {
		t := &obj.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !taint.Tolerated(p.Spec.Tolerations, t) {
			return whyTaint
		}
	}
	if !k.chosen(n) {
		return whyAffinity
	}
	return k.unmet(n)
}

// unmet says what the class's claims miss on n.
func (k *class) unmet(n *node) string {
	for i := range k.volumes {
		if why := k.volumes[i].refuses(n.obj); why != "" {
			return why
		}
	}
	return ""
}

// chosen says whether the pod's node selector and required affinity allow n.
func (k *class) chosen(n *node) bool {
	if !k.selective {
		return true
	}
	ok, err := k.nodes.Match(n.obj)
	return err == nil && ok
}

// fits says whether n has room for the class's pods.
func (k *class) fits(n *node) bool {
	r, a, u := &k.sample.requests, &n.allocatable, &n.requested
	if len(n.pods) >= n.maxPods ||
		r.cpu > 0 && r.cpu > a.cpu-u.cpu || r.memory > 0 && r.memory > a.memory-u.memory || r.ephemeral > 0 && r.ephemeral > a.ephemeral-u.ephemeral {
		return false
	}
	for name, want := range r.others {
		if want > a.others[name]-u.others[name] {
			return false
		}
	}
	return !k.portTaken(n)
}

func (k *class) portTaken(n *node) bool {
	for _, want := range k.sample.ports {
		for _, have := range n.ports {
			if want.clashes(have) {
				return true
			}
		}
	}
	return false
}

// why explains what is wrong with n, in the order in which it is checked.
func (k *class) why(n *node) rejection {
	if reason := k.static(n); reason != "" {
		kind := causeNode
		if reason == k.unmet(n) {
			kind |= causeVolume
		}
		return rejection{[]string{reason}, true, kind}
	}
	if k.portTaken(n) {
		return rejection{[]string{whyPorts}, false, causeRoom | causeNode}
	}
	if reasons, final := k.short(n); len(reasons) > 0 {
		return rejection{reasons, final, causeRoom | causeNode}
	}
	if reason, final := k.topo.reject(n); reason != "" {
		return rejection{[]string{reason}, final, causePods | causeRoom | causeNode}
	}
	return rejection{}
}

// short lists what n has too little of; final when even empty it would.
func (k *class) short(n *node) (reasons []string, final bool) {
	if len(n.pods) >= n.maxPods {
		reasons = append(reasons, whyPods)
	}
	check := func(name corev1.ResourceName, want, have, used int64) {
		if want > 0 && want > have-used {
			reasons = append(reasons, "Insufficient "+string(name))
			final = final || want > have
		}
	}
	r, a, u := &k.sample.requests, &n.allocatable, &n.requested
	check(corev1.ResourceCPU, r.cpu, a.cpu, u.cpu)
	check(corev1.ResourceMemory, r.memory, a.memory, u.memory)
	check(corev1.ResourceEphemeralStorage, r.ephemeral, a.ephemeral, u.ephemeral)
	for _, name := range slices.SortedFunc(maps.Keys(r.others), func(a, b corev1.ResourceName) int { return cmp.Compare(a, b) }) {
		check(name, r.others[name], a.others[name], u.others[name])
	}
	return reasons, final
}

// onlyNode returns the one node that the pod's required affinity names, ""
// when it does not: pods of a DaemonSet are tied to theirs this way.
func onlyNode(p *corev1.Pod) string {
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return ""
	}
	name := ""
	for _, t := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		found := ""
		for _, f := range t.MatchFields {
			if f.Key == "metadata.name" && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				found = f.Values[0]
			}
		}
		if found == "" || name != "" && name != found {
			return ""
		}
		name = found
	}
	return name
}

// selective says whether the pod is choosy about nodes' labels at all.
func selective(p *corev1.Pod) bool {
	return len(p.Spec.NodeSelector) > 0 || p.Spec.Affinity != nil && p.Spec.Affinity.NodeAffinity != nil &&
		p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
}

func preferredNodes(p *corev1.Pod) *nodeaffinity.PreferredSchedulingTerms {
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return nil
	}
	terms := p.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	if len(terms) == 0 {
		return nil
	}
	out, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
	if err != nil {
		return nil
	}
	return out
}

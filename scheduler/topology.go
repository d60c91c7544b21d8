package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/semantics/taint"
)

// counter counts pods by the value of a node label. Values are numbered, so
// that a look-up costs two array reads.
type counter struct {
	key    string
	domain []int32 // by node place: number of its value, -1 without the label
	count  []int64 // by number
	total  int64
}

const nowhere = -1

func newCounter(c *cluster, key string, counts func(*node) bool) *counter {
	t := &counter{key: key, domain: make([]int32, len(c.nodes))}
	numbers := map[string]int32{}
	for i, n := range c.nodes {
		t.domain[i] = nowhere
		if n == nil || n.gone || !counts(n) {
			continue
		}
		v, ok := n.obj.Labels[key]
		if !ok {
			continue
		}
		d, known := numbers[v]
		if !known {
			d = int32(len(t.count))
			numbers[v] = d
			t.count = append(t.count, 0)
		}
		t.domain[i] = d
	}
	return t
}

func (t *counter) add(n *node, weight int64) {
	if d := t.domain[n.at]; d != nowhere {
		t.count[d] += weight
		t.total += weight
	}
}

func (t *counter) at(n *node) (int64, bool) {
	if d := t.domain[n.at]; d != nowhere {
		return t.count[d], true
	}
	return 0, false
}

// topology is all that makes a class's placing depend on where other pods are.
type topology struct {
	c      *cluster
	sample *info

	affinity   []*counter // one per required term; pods that match all terms
	selfDrawn  bool       // the pod matches its own required terms
	anti       []*counter // one per required term
	existing   map[string]*counter
	score      map[string]*counter
	scoreTerms bool

	hard, soft []spread
	defaulted  bool // soft comes from the defaults: nodes may lack labels
}

// spread is one topology spread constraint.
type spread struct {
	*counter
	selector   labels.Selector
	maxSkew    int64
	minDomains int64
	self       int64
}

func always(*node) bool { return true }

func newTopology(k *class, c *cluster) *topology {
	t := &topology{c: c, sample: k.sample, existing: map[string]*counter{}, score: map[string]*counter{}}
	s := k.sample
	for i := range s.affinity {
		t.affinity = append(t.affinity, newCounter(c, s.affinity[i].topology, always))
	}
	t.selfDrawn = len(s.affinity) > 0 && t.matchesAll(s.affinity, s.pod)
	for i := range s.antiAffinity {
		t.anti = append(t.anti, newCounter(c, s.antiAffinity[i].topology, always))
	}
	t.spreads(k)
	if t.aboutOthers() {
		for _, at := range c.pods {
			t.count(at.node, at.info, 1)
		}
		return t
	}
	// Only pods with terms of their own can matter.
	for _, at := range c.prickly {
		t.count(at.node, at.info, 1)
	}
	for uid, at := range c.drawn {
		if _, twice := c.prickly[uid]; !twice {
			t.count(at.node, at.info, 1)
		}
	}
	return t
}

// aboutOthers says whether the class's own rules speak of other pods.
func (t *topology) aboutOthers() bool {
	s := t.sample
	return len(s.affinity)+len(s.antiAffinity)+len(s.preferAffinity)+len(s.preferAntiAffinity)+len(t.hard)+len(t.soft) > 0
}

func (t *topology) spreads(k *class) {
	p := k.sample.pod
	constraints := p.Spec.TopologySpreadConstraints
	if len(constraints) == 0 && k.spread != nil && !k.spread.Empty() {
		t.defaulted = true
		t.soft = []spread{
			{counter: newCounter(t.c, corev1.LabelHostname, k.chosen), selector: k.spread, maxSkew: 3, self: 1},
			{counter: newCounter(t.c, corev1.LabelTopologyZone, k.chosen), selector: k.spread, maxSkew: 5, self: 1},
		}
		return
	}
	for i := range constraints {
		tc := &constraints[i]
		sel := withLabelKeys(selectorOf(tc.LabelSelector), p.Labels, tc.MatchLabelKeys, nil)
		counts := func(n *node) bool {
			if tc.NodeAffinityPolicy == nil || *tc.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
				if !k.chosen(n) {
					return false
				}
			}
			if tc.NodeTaintsPolicy != nil && *tc.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
				for j := range n.obj.Spec.Taints {
					if t := &n.obj.Spec.Taints[j]; t.Effect != corev1.TaintEffectPreferNoSchedule && !taint.Tolerated(p.Spec.Tolerations, t) {
						return false
					}
				}
			}
			// A node counts only if it has all the labels that constraints of its kind need.
			for j := range constraints {
				if constraints[j].WhenUnsatisfiable == tc.WhenUnsatisfiable {
					if _, ok := n.obj.Labels[constraints[j].TopologyKey]; !ok {
						return false
					}
				}
			}
			return true
		}
		s := spread{counter: newCounter(t.c, tc.TopologyKey, counts), selector: sel, maxSkew: int64(tc.MaxSkew), minDomains: 1}
		if tc.MinDomains != nil {
			s.minDomains = int64(*tc.MinDomains)
		}
		if sel.Matches(labels.Set(p.Labels)) {
			s.self = 1
		}
		if tc.WhenUnsatisfiable == corev1.DoNotSchedule {
			t.hard = append(t.hard, s)
		} else {
			t.soft = append(t.soft, s)
		}
	}
}

func (t *topology) matchesAll(terms []term, p *corev1.Pod) bool {
	for i := range terms {
		if !terms[i].matches(p, t.c.namespaces) {
			return false
		}
	}
	return true
}

func (t *topology) keyed(m map[string]*counter, key string) *counter {
	k := m[key]
	if k == nil {
		k = newCounter(t.c, key, always)
		m[key] = k
	}
	return k
}

// count takes a pod on n in (sign 1) or out (-1).
func (t *topology) count(n *node, o *info, sign int64) {
	s := t.sample
	if len(s.affinity) > 0 && t.matchesAll(s.affinity, o.pod) {
		for _, c := range t.affinity {
			c.add(n, sign)
		}
	}
	for i := range s.antiAffinity {
		if s.antiAffinity[i].matches(o.pod, t.c.namespaces) {
			t.anti[i].add(n, sign)
		}
	}
	for i := range o.antiAffinity {
		if o.antiAffinity[i].matches(s.pod, t.c.namespaces) {
			t.keyed(t.existing, o.antiAffinity[i].topology).add(n, sign)
		}
	}
	t.attract(n, s.preferAffinity, o.pod, sign, 1)
	t.attract(n, s.preferAntiAffinity, o.pod, sign, -1)
	t.attract(n, o.preferAffinity, s.pod, sign, 1)
	t.attract(n, o.preferAntiAffinity, s.pod, sign, -1)
	t.attract(n, o.affinity, s.pod, sign, 1)
	t.spreadCount(n, o, sign)
}

// attract adds to the score what terms say of p. Required terms of existing
// pods have no weight of their own and count 1.
func (t *topology) attract(n *node, terms []term, p *corev1.Pod, sign, way int64) {
	for i := range terms {
		if terms[i].matches(p, t.c.namespaces) {
			w := int64(terms[i].weight)
			if w == 0 {
				w = 1
			}
			t.keyed(t.score, terms[i].topology).add(n, sign*way*w)
			t.scoreTerms = true
		}
	}
}

func (t *topology) spreadCount(n *node, o *info, sign int64) {
	if o.pod.Namespace != t.sample.pod.Namespace || o.ending {
		return
	}
	for _, list := range [][]spread{t.hard, t.soft} {
		for i := range list {
			if list[i].selector.Matches(labels.Set(o.pod.Labels)) {
				list[i].add(n, sign)
			}
		}
	}
}

// reject judges n; "" is no objection. final: no eviction helps.
func (t *topology) reject(n *node) (reason string, final bool) {
	for i := range t.hard {
		s := &t.hard[i]
		have, ok := s.at(n)
		if !ok {
			if _, labelled := n.obj.Labels[s.key]; !labelled {
				return whySpreadLabel, true
			}
		}
		if have+s.self-s.least() > s.maxSkew {
			return whySpread, false
		}
	}
	for _, c := range t.existing {
		if have, _ := c.at(n); have > 0 {
			return whyExistingAnti, false
		}
	}
	for _, c := range t.anti {
		if have, _ := c.at(n); have > 0 {
			return whyAntiAffinity, false
		}
	}
	drawn, labelled := true, true
	var total int64
	for _, c := range t.affinity {
		have, ok := c.at(n)
		labelled = labelled && ok
		drawn = drawn && have > 0
		total += c.total
	}
	if !labelled || !drawn && !(t.selfDrawn && total == 0) {
		// The first of a group that is drawn to itself may go anywhere.
		return whyPodAffinity, true
	}
	return "", false
}

// least is how few matching pods the emptiest domain has.
func (s *spread) least() int64 {
	if int64(len(s.count)) < s.minDomains {
		return 0
	}
	m := int64(math.MaxInt64)
	for _, n := range s.count {
		m = min(m, n)
	}
	if m == math.MaxInt64 {
		return 0
	}
	return m
}

// trivial says that no node is rejected or scored for where other pods are.
func (t *topology) trivial() bool {
	return len(t.affinity)+len(t.anti)+len(t.existing)+len(t.hard) == 0
}

// pull is the raw inter-pod affinity score of n.
func (t *topology) pull(n *node) int64 {
	var sum int64
	for _, c := range t.score {
		have, _ := c.at(n)
		sum += have
	}
	return sum
}

// crowd is the raw spreading score of n, lower is better; ok is false for a
// node that lacks a label and must not be preferred.
func (t *topology) crowd(n *node, weights []float64) (int64, bool) {
	var sum float64
	for i := range t.soft {
		s := &t.soft[i]
		have, ok := s.at(n)
		if !ok {
			if !t.defaulted {
				return 0, false
			}
			continue
		}
		sum += float64(have)*weights[i] + float64(s.maxSkew-1)
	}
	return int64(math.Round(sum)), true
}

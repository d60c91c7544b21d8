package scheduler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// place chooses a node for a pod; the nodes' own names break ties by chance.
// With no node that does it returns nil and the class, which knows why.
func (c *cluster) place(i *info, spread labels.Selector, rng *rand.Rand) (*node, *class) {
	k := c.classOf(i, spread)
	if k.refused != "" {
		return nil, k
	}
	if k.only != "" {
		if n := c.byName[k.only]; n != nil && k.takes(n) {
			return n, k
		}
		return nil, k
	}
	c.feasible = c.feasible[:0]
	plain := k.topo.trivial()
	for at := range k.states {
		if s := &k.states[at]; s.static && s.fits {
			if !plain {
				if reason, _ := k.topo.reject(c.nodes[at]); reason != "" {
					continue
				}
			}
			c.feasible = append(c.feasible, int32(at))
		}
	}
	switch len(c.feasible) {
	case 0:
		return nil, k
	case 1:
		return c.nodes[c.feasible[0]], k
	}
	return c.nodes[k.best(c, rng)], k
}

// takes says whether n would take one more pod of the class.
func (k *class) takes(n *node) bool {
	s := &k.states[n.at]
	if !s.static || !s.fits {
		return false
	}
	reason, _ := k.topo.reject(n)
	return reason == ""
}

// best scores the feasible nodes.
func (k *class) best(c *cluster, rng *rand.Rand) int32 {
	var mostPrefer, mostTaints int64
	lowPull, highPull := int64(math.MaxInt64), int64(math.MinInt64)
	for _, at := range c.feasible {
		s := &k.states[at]
		mostPrefer, mostTaints = max(mostPrefer, s.prefer), max(mostTaints, s.taints)
	}
	pulled := k.topo.scoreTerms
	if pulled {
		for _, at := range c.feasible {
			p := k.topo.pull(c.nodes[at])
			lowPull, highPull = min(lowPull, p), max(highPull, p)
		}
	}
	w := &k.profile.Weights
	crowd := k.crowds(c)
	best, ties, top := c.feasible[0], 0, int64(math.MinInt64)
	for j, at := range c.feasible {
		s := &k.states[at]
		total := s.room*w.Room + s.balance*w.Balance + s.images*w.Locality
		if mostPrefer > 0 {
			total += s.prefer * full / mostPrefer * w.Prefer
		}
		if mostTaints > 0 {
			total += (full - s.taints*full/mostTaints) * w.Taints
		}
		if pulled && highPull > lowPull {
			p := k.topo.pull(c.nodes[at])
			total += int64(float64(full)*float64(p-lowPull)/float64(highPull-lowPull)) * w.Pull
		}
		if crowd != nil {
			total += crowd[j] * w.Spread
		}
		switch {
		case total > top:
			best, ties, top = at, 1, total
		case total == top:
			if ties++; rng.IntN(ties) == 0 {
				best = at
			}
		}
	}
	return best
}

// crowds returns the spreading score of each feasible node, nil when nothing asks for spreading.
func (k *class) crowds(c *cluster) []int64 {
	t := k.topo
	if len(t.soft) == 0 {
		return nil
	}
	weights := make([]float64, len(t.soft))
	for i := range t.soft {
		domains := len(t.soft[i].count)
		if t.soft[i].key == corev1.LabelHostname {
			domains = len(c.feasible)
		}
		weights[i] = math.Log(float64(domains + 2))
	}
	c.crowd = slices.Grow(c.crowd[:0], len(c.feasible))[:len(c.feasible)]
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for j, at := range c.feasible {
		raw, ok := t.crowd(c.nodes[at], weights)
		if !ok {
			c.crowd[j] = -1
			continue
		}
		c.crowd[j] = raw
		low, high = min(low, raw), max(high, raw)
	}
	for j, raw := range c.crowd {
		switch {
		case raw < 0:
			c.crowd[j] = 0
		case high == 0:
			c.crowd[j] = full
		default:
			c.crowd[j] = full * (high + low - raw) / high
		}
	}
	return c.crowd
}

// diagnosis tells why no node does.
type diagnosis struct {
	nodes    int
	counts   map[string]int
	refused  string
	final    int // nodes where eviction would not help
	helpable []*node
	cause    cause
}

// diagnose explains a failure to place. Pods of one class fail alike: as long
// as nothing changed they share the answer, which must not be modified.
func (c *cluster) diagnose(k *class) diagnosis {
	if at := [2]int{k.epoch + 1, k.seen + 1}; k.toldAt != at {
		k.told, k.toldAt = c.look(k), at
	}
	return k.told
}

func (c *cluster) look(k *class) diagnosis {
	d := diagnosis{counts: map[string]int{}, refused: k.refused}
	if d.refused != "" {
		d.cause = causeVolume | causeNode | causeRoom
	}
	for _, n := range c.nodes {
		if n == nil || n.gone {
			continue
		}
		d.nodes++
		if d.refused != "" {
			d.final++
			continue
		}
		r := k.why(n)
		for _, reason := range r.reasons {
			d.counts[reason]++
		}
		d.cause |= r.kind
		if r.final {
			d.final++
		} else {
			d.helpable = append(d.helpable, n)
		}
	}
	if d.nodes == 0 {
		d.cause = causeNode
	}
	return d
}

// message is upstream's text of the diagnosis; claims and preemption are what
// came of trying to make room.
func (d *diagnosis) message(claims, preemption string) string {
	if d.nodes == 0 {
		return "no nodes available to schedule pods"
	}
	text := fmt.Sprintf("0/%d nodes are available: ", d.nodes)
	if d.refused != "" {
		text += d.refused + "."
	} else {
		text += histogram(d.counts) + "."
	}
	if preemption != "" {
		text += " " + claims + ", preemption: " + preemption
	}
	return text
}

func histogram(counts map[string]int) string {
	var parts []string
	for reason, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// noRoomMade is what preemption says when it found nothing to do.
func (d *diagnosis) noRoomMade() string {
	counts := map[string]int{}
	if d.final > 0 {
		counts["Preemption is not helpful for scheduling"] = d.final
	}
	if left := d.nodes - d.final; left > 0 {
		counts["No preemption victims found for incoming pod"] = left
	}
	return fmt.Sprintf("0/%d nodes are available: %s.", d.nodes, histogram(counts))
}

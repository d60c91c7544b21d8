package scheduler

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/semantics/taint"
)

// class is what is known of all pods that placing treats alike.
type class struct {
	sample    *info
	profile   *Profile
	spread    labels.Selector // of the workload the pods belong to, nil without
	only      string          // the one node they may run on
	selective bool
	nodes     nodeaffinity.RequiredNodeAffinity
	preferred *nodeaffinity.PreferredSchedulingTerms
	volumes   []need
	refused   string // no node will do, for what the pods themselves are

	epoch, seen int // how far into the cluster's history the rest is right
	states      []state
	topo        *topology

	told   diagnosis // of the state at toldAt
	toldAt [2]int    // epoch and place in the log, plus one
}

// state is a node as the class sees it.
type state struct {
	static, fits          bool
	prefer, taints        int64 // raw, to be normalized
	images, room, balance int64 // 0–100
}

// maxClasses bounds the memory; each costs some bytes per node.
const maxClasses = 64

// classOf returns the up-to-date class of i.
func (c *cluster) classOf(i *info, spread labels.Selector) *class {
	if onlyNode(i.pod) != "" {
		// One node to look at, and no other pod like it: nothing worth keeping.
		k := c.newClass(i, nil)
		k.catchUp(c)
		return k
	}
	text := ""
	if spread != nil {
		text = spread.String()
	}
	sig := signature(i, text)
	k := c.classes[sig]
	if k == nil {
		if len(c.ages) >= maxClasses {
			delete(c.classes, c.ages[0])
			c.ages = c.ages[1:]
		}
		k = c.newClass(i, spread)
		c.classes[sig] = k
		c.ages = append(c.ages, sig)
	}
	k.catchUp(c)
	return k
}

func (c *cluster) newClass(i *info, spread labels.Selector) *class {
	p := i.pod
	k := &class{sample: i, profile: c.profile(p.Spec.SchedulerName), spread: spread, only: onlyNode(p), selective: selective(p), epoch: -1, preferred: preferredNodes(p)}
	if k.selective {
		k.nodes = nodeaffinity.GetRequiredNodeAffinity(p)
	}
	return k
}

// catchUp brings the class up to the cluster's present state.
func (k *class) catchUp(c *cluster) {
	now := c.base + len(c.changes)
	if k.epoch != c.epoch || k.seen < c.base {
		k.epoch, k.seen = c.epoch, now
		k.volumes, k.refused = c.claims(k.sample.pod)
		k.states = make([]state, len(c.nodes))
		k.topo = newTopology(k, c)
		if k.only != "" {
			if n := c.byName[k.only]; n != nil {
				k.judge(c, n)
			}
			return
		}
		for _, n := range c.nodes {
			if n != nil {
				k.judge(c, n)
			}
		}
		return
	}
	for ; k.seen < now; k.seen++ {
		ch := c.changes[k.seen-c.base]
		if ch.pod != nil {
			k.topo.count(ch.node, ch.pod, int64(ch.sign))
			k.measure(ch.node)
		} else {
			k.judge(c, ch.node)
		}
	}
}

// judge recomputes all of a node's state.
func (k *class) judge(c *cluster, n *node) {
	s := &k.states[n.at]
	*s = state{static: k.static(n) == ""}
	if !s.static {
		return
	}
	if k.preferred != nil {
		s.prefer = k.preferred.Score(n.obj)
	}
	for i := range n.obj.Spec.Taints {
		if t := &n.obj.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !taint.Tolerated(k.sample.pod.Spec.Tolerations, t) {
			s.taints++
		}
	}
	s.images = k.imageScore(c, n)
	k.measure(n)
}

// measure recomputes what a node's pods change.
func (k *class) measure(n *node) {
	s := &k.states[n.at]
	if !s.static {
		return
	}
	if s.fits = k.fits(n); s.fits {
		s.room, s.balance = k.roomScore(n), k.balanceScore(n)
	}
}

const full = 100 // the best score

// roomScore prefers nodes with much left, or, to pack, those with little.
func (k *class) roomScore(n *node) int64 {
	pr := k.profile
	score := func(have, used int64) int64 {
		switch {
		case have == 0 || used > have:
			return 0
		case pr.Pack:
			return used * full / have
		}
		return (have - used) * full / have
	}
	if pr.CPU+pr.Memory == 0 {
		return 0
	}
	s, u := &k.sample.scored, &n.scored
	return (score(n.allocatable.cpu, u.cpu+s.cpu)*pr.CPU + score(n.allocatable.memory, u.memory+s.memory)*pr.Memory) / (pr.CPU + pr.Memory)
}

// balanceScore prefers nodes whose processor and memory would be used alike.
func (k *class) balanceScore(n *node) int64 {
	r, u, a := &k.sample.requests, &n.requested, &n.allocatable
	if r.cpu == 0 && r.memory == 0 || a.cpu == 0 || a.memory == 0 {
		return 0
	}
	cpu := min(1, float64(u.cpu+r.cpu)/float64(a.cpu))
	memory := min(1, float64(u.memory+r.memory)/float64(a.memory))
	return int64((1 - math.Abs(cpu-memory)/2) * full)
}

// Below the first size an image costs no time worth a score, above the second it makes no difference.
const (
	imageLeast = 23 << 20
	imageMost  = 1000 << 20
)

// imageScore prefers nodes that have the images, the more so the more common they are.
func (k *class) imageScore(c *cluster, n *node) int64 {
	var sum float64
	p := k.sample.pod
	images := 0
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			images++
			name := list[i].Image
			if at := strings.LastIndex(name, ":"); at <= strings.LastIndex(name, "/") {
				name += ":latest"
			}
			if size, ok := n.images[name]; ok {
				sum += float64(size) * float64(c.images[name]) / float64(len(c.byName))
			}
		}
	}
	if images == 0 {
		return 0
	}
	most := float64(imageMost * images)
	sum = min(max(sum, imageLeast), most)
	return int64(full * (sum - imageLeast) / (most - imageLeast))
}

package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// node is a node with what runs there.
type node struct {
	at          int // its place in cluster.nodes
	obj         *corev1.Node
	pods        map[types.UID]*info
	requested   resources
	scored      resources
	allocatable resources
	maxPods     int
	ports       []port
	images      map[string]int64 // bytes by name
	gone        bool             // deleted while pods were still there
}

// cluster is all that placing depends on. It is used by one caller at a time.
type cluster struct {
	nodes  []*node // holes are nil: a node's place never changes
	free   []int
	byName map[string]*node
	pods   map[types.UID]placed

	profiles map[string]*Profile // by scheduler's name

	namespaces func(name string) labels.Set
	claims     func(p *corev1.Pod) ([]need, string)

	// prickly are the pods with required anti-affinity, drawn those with any
	// other pod affinity: their terms speak about pods to come.
	prickly, drawn map[types.UID]placed

	// changes is the log that classes catch up with; base counts the entries dropped.
	changes []change
	base    int
	epoch   int // grows when nodes' labels change: classes start over
	images  map[string]int

	classes map[string]*class
	ages    []string

	feasible []int32 // scratch of place
	crowd    []int64
}

type placed struct {
	info *info
	node *node
}

// change says that a node's room changed, and by which pod, if by one.
type change struct {
	node *node
	pod  *info
	sign int
}

// logLimit bounds the log: a class that missed more starts over.
const logLimit = 1 << 16

func newCluster() *cluster {
	return &cluster{
		byName: map[string]*node{}, pods: map[types.UID]placed{}, namespaces: func(string) labels.Set { return nil },
		claims:  func(*corev1.Pod) ([]need, string) { return nil, "" },
		prickly: map[types.UID]placed{}, drawn: map[types.UID]placed{}, images: map[string]int{}, classes: map[string]*class{},
	}
}

// profile returns how pods that ask for a name are placed.
func (c *cluster) profile(name string) *Profile {
	if p := c.profiles[name]; p != nil {
		return p
	}
	p := DefaultProfile(name)
	return &p
}

func (c *cluster) log(n *node, p *info, sign int) {
	if len(c.changes) >= logLimit {
		half := len(c.changes) / 2
		c.base += half
		c.changes = slices.Delete(c.changes, 0, half)
	}
	c.changes = append(c.changes, change{n, p, sign})
}

func (c *cluster) count() int {
	n := 0
	for _, x := range c.byName {
		if !x.gone {
			n++
		}
	}
	return n
}

func (c *cluster) nodeNamed(name string) *node {
	n := c.byName[name]
	if n == nil {
		n = &node{pods: map[types.UID]*info{}, obj: &corev1.Node{}, gone: true}
		if k := len(c.free); k > 0 {
			n.at = c.free[k-1]
			c.free = c.free[:k-1]
			c.nodes[n.at] = n
		} else {
			n.at = len(c.nodes)
			c.nodes = append(c.nodes, n)
		}
		c.byName[name] = n
		c.epoch++
	}
	return n
}

// setNode adds or updates a node.
func (c *cluster) setNode(obj *corev1.Node) {
	n := c.nodeNamed(obj.Name)
	old := n.obj
	if !n.gone && !nodeChanged(old, obj) {
		n.obj = obj
		return
	}
	if n.gone || !equalLabels(old.Labels, obj.Labels) || !equality.Semantic.DeepEqual(old.Spec.Taints, obj.Spec.Taints) {
		c.epoch++
	}
	n.obj, n.gone = obj, false
	n.allocatable = amounts(obj.Status.Allocatable)
	n.maxPods = int(obj.Status.Allocatable.Pods().Value())
	c.setImages(n)
	c.log(n, nil, 0)
}

// nodeChanged says whether two versions of a node differ in what matters here:
// most updates are heartbeats and do not.
func nodeChanged(old, obj *corev1.Node) bool {
	return old.Spec.Unschedulable != obj.Spec.Unschedulable || !equalLabels(old.Labels, obj.Labels) ||
		!equality.Semantic.DeepEqual(old.Status.Allocatable, obj.Status.Allocatable) ||
		!equality.Semantic.DeepEqual(old.Spec.Taints, obj.Spec.Taints) ||
		!equality.Semantic.DeepEqual(old.Status.Images, obj.Status.Images)
}

func (c *cluster) setImages(n *node) {
	for name := range n.images {
		if c.images[name]--; c.images[name] == 0 {
			delete(c.images, name)
		}
	}
	n.images = map[string]int64{}
	for _, img := range n.obj.Status.Images {
		for _, name := range img.Names {
			if _, dup := n.images[name]; !dup {
				c.images[name]++
			}
			n.images[name] = img.SizeBytes
		}
	}
}

func (c *cluster) dropNode(name string) {
	n := c.byName[name]
	if n == nil {
		return
	}
	n.gone = true
	n.obj = &corev1.Node{}
	c.setImages(n)
	c.epoch++
	c.dropIfEmpty(name, n)
}

func (c *cluster) dropIfEmpty(name string, n *node) {
	if n.gone && len(n.pods) == 0 {
		delete(c.byName, name)
		c.nodes[n.at] = nil
		c.free = append(c.free, n.at)
		c.epoch++
	}
}

// setPod makes the pod count on its node, in place of what it counted before.
func (c *cluster) setPod(p *corev1.Pod) {
	if old, ok := c.pods[p.UID]; ok {
		if old.info.pod == p {
			return
		}
		if old.info.pod.Spec.NodeName == p.Spec.NodeName && old.info.pod.ResourceVersion == p.ResourceVersion {
			return
		}
	}
	i := newInfo(p)
	if old, ok := c.pods[p.UID]; ok && old.node == c.byName[p.Spec.NodeName] && sameForPlacing(old.info, i) {
		old.info.pod = p // a change of status, mostly: nothing to catch up with
		return
	}
	c.putPod(i, p.Spec.NodeName)
}

func sameForPlacing(a, b *info) bool {
	x, y := a.pod, b.pod
	return x.Generation == y.Generation && y.Generation > 0 && a.ending == b.ending && equalLabels(x.Labels, y.Labels) &&
		a.requests.cpu == b.requests.cpu && a.requests.memory == b.requests.memory && a.requests.ephemeral == b.requests.ephemeral &&
		maps.Equal(a.requests.others, b.requests.others)
}

func (c *cluster) putPod(i *info, nodeName string) {
	c.dropPod(i.pod.UID)
	n := c.nodeNamed(nodeName)
	n.pods[i.pod.UID] = i
	n.requested.add(&i.requests, 1)
	n.scored.add(&i.scored, 1)
	n.ports = append(n.ports, i.ports...)
	at := placed{i, n}
	c.pods[i.pod.UID] = at
	if len(i.antiAffinity) > 0 {
		c.prickly[i.pod.UID] = at
	}
	if len(i.affinity)+len(i.preferAffinity)+len(i.preferAntiAffinity) > 0 {
		c.drawn[i.pod.UID] = at
	}
	c.log(n, i, 1)
}

func (c *cluster) dropPod(uid types.UID) {
	at, ok := c.pods[uid]
	if !ok {
		return
	}
	n, i := at.node, at.info
	delete(c.pods, uid)
	delete(c.prickly, uid)
	delete(c.drawn, uid)
	delete(n.pods, uid)
	n.requested.add(&i.requests, -1)
	n.scored.add(&i.scored, -1)
	if len(i.ports) > 0 {
		n.ports = n.ports[:0]
		for _, o := range n.pods {
			n.ports = append(n.ports, o.ports...)
		}
	}
	c.log(n, i, -1)
	if n.gone {
		for name, x := range c.byName {
			if x == n {
				c.dropIfEmpty(name, n)
				break
			}
		}
	}
}

func equalLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

package garbagecollector

import (
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// identity is where an object is and which one it is.
type identity struct {
	resource  client.Served
	namespace string
	name      string
	uid       types.UID
}

// node is what the graph knows of one object. Nodes are replaced, not changed.
type node struct {
	identity
	owners     []metav1.OwnerReference
	deleting   bool
	foreground bool // being deleted, its dependents first
	orphaning  bool // being deleted, its dependents let go
}

func newNode(r client.Served, o api.Object) *node {
	n := &node{
		identity: identity{resource: r, namespace: o.GetNamespace(), name: o.GetName(), uid: o.GetUID()},
		owners:   o.GetOwnerReferences(), deleting: o.GetDeletionTimestamp() != nil,
	}
	n.foreground = n.deleting && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
	n.orphaning = n.deleting && slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
	return n
}

// is says whether the reference of an object in namespace means n.
func (n *node) is(ref *metav1.OwnerReference, namespace string) bool {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	return err == nil && n.uid == ref.UID && n.name == ref.Name && n.resource.Kind == ref.Kind && n.resource.Group == gv.Group &&
		(!n.resource.Namespaced || n.namespace == namespace)
}

// blocks says whether n must go before the owner may.
func (n *node) blocks(owner types.UID) bool {
	return slices.ContainsFunc(n.owners, func(r metav1.OwnerReference) bool {
		return r.UID == owner && r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
	})
}

// graph knows all objects and who depends on whom.
type graph struct {
	mu         sync.Mutex
	nodes      map[types.UID]*node
	dependents map[types.UID]map[types.UID]bool // by owner, which may be unknown
}

func newGraph() *graph {
	return &graph{nodes: map[types.UID]*node{}, dependents: map[types.UID]map[types.UID]bool{}}
}

func (g *graph) get(uid types.UID) *node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[uid]
}

// of returns the dependents of an owner.
func (g *graph) of(owner types.UID) []*node {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*node, 0, len(g.dependents[owner]))
	for uid := range g.dependents[owner] {
		out = append(out, g.nodes[uid])
	}
	return out
}

// put takes in an object as it is now and returns whom that concerns: the UIDs
// to look at.
func (g *graph) put(n *node) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.nodes[n.uid]
	g.unlink(was)
	g.nodes[n.uid] = n
	for _, r := range n.owners {
		if g.dependents[r.UID] == nil {
			g.dependents[r.UID] = map[types.UID]bool{}
		}
		g.dependents[r.UID][n.uid] = true
	}
	look := map[types.UID]bool{}
	if n.foreground || n.orphaning {
		look[n.uid] = true
	}
	if n.foreground && (was == nil || !was.foreground) {
		maps.Copy(look, g.dependents[n.uid])
	}
	if was == nil || !slices.EqualFunc(was.owners, n.owners, sameReference) || was.foreground != n.foreground {
		for i := range n.owners {
			owner := g.nodes[n.owners[i].UID]
			if owner == nil || owner.foreground || !owner.is(&n.owners[i], n.namespace) {
				look[n.uid] = true
			}
		}
		g.wakeOwners(n, look)
		g.wakeOwners(was, look)
	}
	return slices.Collect(maps.Keys(look))
}

// remove forgets an object and returns whom that concerns.
func (g *graph) remove(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.nodes[uid]
	g.unlink(was)
	delete(g.nodes, uid)
	look := map[types.UID]bool{}
	maps.Copy(look, g.dependents[uid])
	g.wakeOwners(was, look)
	return slices.Collect(maps.Keys(look))
}

// wakeOwners marks the owners that wait for n.
func (g *graph) wakeOwners(n *node, look map[types.UID]bool) {
	if n == nil {
		return
	}
	for _, r := range n.owners {
		if owner := g.nodes[r.UID]; owner != nil && owner.foreground {
			look[r.UID] = true
		}
	}
}

func (g *graph) unlink(n *node) {
	if n == nil {
		return
	}
	for _, r := range n.owners {
		if delete(g.dependents[r.UID], n.uid); len(g.dependents[r.UID]) == 0 {
			delete(g.dependents, r.UID)
		}
	}
}

// all returns the objects of one resource.
func (g *graph) all(r schema.GroupVersionResource) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []types.UID
	for uid, n := range g.nodes {
		if n.resource.GroupVersionResource == r {
			out = append(out, uid)
		}
	}
	return out
}

func sameReference(a, b metav1.OwnerReference) bool {
	block := func(p *bool) bool { return p != nil && *p }
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && block(a.BlockOwnerDeletion) == block(b.BlockOwnerDeletion)
}

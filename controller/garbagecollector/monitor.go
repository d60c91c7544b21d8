package garbagecollector

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

const (
	resync      = 30 * time.Second // between looks at what is served
	syncTimeout = 30 * time.Second // for new mirrors' first lists
)

// monitored says whether objects of r can have owners that matter: those that
// can be listed, watched and deleted. Events come and go on their own.
func monitored(r *client.Served) bool {
	if r.Resource == "events" && (r.Group == "" || r.Group == "events.k8s.io") {
		return false
	}
	return r.Has("delete", "list", "watch")
}

// discover brings the mirrors in line with what is served. Resources missing
// from an incomplete answer are kept.
func (l *loop) discover(ctx context.Context) error {
	served, err := client.Discover(ctx, l.Client)
	if err != nil && len(served) == 0 {
		return err
	}
	now := map[schema.GroupVersionResource]client.Served{}
	for i := range served {
		now[served[i].GroupVersionResource] = served[i]
	}
	kinds := map[schema.GroupKind]client.Served{}
	for _, s := range served {
		kinds[schema.GroupKind{Group: s.Group, Kind: s.Kind}] = s
	}
	l.mu.Lock()
	if err != nil {
		for k, s := range l.kinds {
			if _, ok := kinds[k]; !ok {
				kinds[k] = s
			}
		}
	}
	l.kinds = kinds
	var gone []*client.ObjectMirror
	for r, m := range l.monitors {
		if _, ok := now[r]; !ok && err == nil {
			delete(l.monitors, r)
			gone = append(gone, m)
		}
	}
	var fresh []client.Served
	for r, s := range now {
		if l.monitors[r] == nil && monitored(&s) {
			l.monitors[r] = l.mirrors.Objects(r)
			fresh = append(fresh, s)
		}
	}
	l.mu.Unlock()
	for _, m := range gone {
		m.Stop()
		for _, uid := range l.graph.all(m.Resource()) {
			l.wake(l.graph.remove(uid))
		}
	}
	l.follow(ctx, fresh)
	if len(fresh) > 0 {
		l.retryUnknown()
	}
	return err
}

// follow takes the objects of new resources into the graph, after all first
// lists are there or took too long: an owner that is not in the graph costs a question.
func (l *loop) follow(ctx context.Context, fresh []client.Served) {
	limit, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	for _, s := range fresh {
		if err := l.monitor(s).WaitSynced(limit); err != nil && ctx.Err() == nil {
			l.Log.Warn("timed out waiting for a resource", "resource", s.GroupResource().String())
		}
	}
	for _, s := range fresh {
		l.monitor(s).OnChange(func(old, new api.Object) { l.change(s, old, new) })
	}
}

func (l *loop) monitor(s client.Served) *client.ObjectMirror {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.monitors[s.GroupVersionResource]
}

// change takes one change into the graph.
func (l *loop) change(s client.Served, old, new api.Object) {
	if old != nil && (new == nil || new.GetUID() != old.GetUID()) {
		l.gone.add(coordinates{s.Group, s.Kind, old.GetNamespace(), old.GetName(), old.GetUID()})
		l.wake(l.graph.remove(old.GetUID()))
	}
	if new == nil {
		return
	}
	n := newNode(s, new)
	l.wake(l.graph.put(n))
	if old == nil && len(n.owners) > 0 {
		l.complain(n)
	}
}

// complain tells of references to owners that are elsewhere.
func (l *loop) complain(n *node) {
	for _, r := range n.owners {
		owner := l.graph.get(r.UID)
		if owner == nil || !owner.resource.Namespaced || owner.namespace == n.namespace {
			continue
		}
		ref := &corev1.ObjectReference{APIVersion: n.resource.GroupVersion().String(), Kind: n.resource.Kind, Namespace: n.namespace, Name: n.name, UID: n.uid}
		l.Events.EventRef(ref, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", "ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
			r.APIVersion, r.Kind, n.namespace, r.Name, r.UID, n.namespace)
	}
}

// lookup finds where objects of a reference's kind are.
func (l *loop) lookup(ref *metav1.OwnerReference) (client.Served, bool) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return client.Served{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}]
	return s, ok
}

// rediscover is the key that stands for a look at what is served.
var rediscover = controller.Key{Namespace: "discovery"}

// rediscoverAfter lets changes of definitions come to an end: what they define
// is served a moment after they say so.
const rediscoverAfter = 300 * time.Millisecond

// sources are the resources whose objects make other resources.
var sources = []schema.GroupVersionResource{
	{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
}

// watchSources looks again when definitions change, not only now and then.
func (l *loop) watchSources() {
	for _, r := range sources {
		l.mirrors.Objects(r).OnChange(func(_, _ api.Object) { l.After(rediscover, rediscoverAfter) })
	}
}

// retryUnknown wakes the objects whose owners' kinds were not known.
func (l *loop) retryUnknown() {
	l.mu.Lock()
	uids := slices.Collect(maps.Keys(l.unknown))
	clear(l.unknown)
	l.mu.Unlock()
	l.wake(uids)
}

// Run discovers what is served, then collects until ctx ends.
func (l *loop) Run(ctx context.Context) error {
	for {
		err := l.discover(ctx)
		if l.ready() {
			break
		}
		l.Log.Warn("nothing discovered yet", "err", err)
		if clock.Sleep(ctx, time.Second) != nil {
			return nil
		}
	}
	l.watchSources()
	return l.Loop.Run(ctx)
}

func (l *loop) ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.monitors) > 0
}

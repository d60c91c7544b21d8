package garbagecollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

type loop struct {
	*controller.Loop
	mirrors *client.Mirrors
	objects client.Interface // reads metadata alone
	graph   *graph
	gone    absent

	mu       sync.Mutex
	monitors map[schema.GroupVersionResource]*client.ObjectMirror
	kinds    map[schema.GroupKind]client.Served
	unknown  map[types.UID]bool // objects with owners of kinds that are not known
}

// New returns the garbagecollector loop. Its keys are UIDs.
func New(d controller.Deps) controller.Controller {
	l := &loop{mirrors: d.Mirrors, graph: newGraph(), monitors: map[schema.GroupVersionResource]*client.ObjectMirror{}, kinds: map[schema.GroupKind]client.Served{},
		unknown: map[types.UID]bool{}}
	l.Loop = controller.NewLoop(d, "garbage-collector", 20, l.reconcile)
	l.Loop.As(d, "generic-garbage-collector")
	l.Events = client.Recorder(l.Client, "garbage-collector-controller", "")
	l.objects = client.Metadata(l.Client)
	l.Every(resync, func(ctx context.Context) {
		if err := l.discover(ctx); err != nil && ctx.Err() == nil {
			l.Log.Warn("discovery is incomplete; what it lacks is left alone", "err", err)
		}
	})
	return l
}

func (l *loop) wake(uids []types.UID) {
	for _, uid := range uids {
		l.Add(controller.Key{Name: string(uid)})
	}
}

// read returns the object as the server has it, nil if that very one is gone.
func (l *loop) read(ctx context.Context, id *identity) (api.Object, error) {
	o, err := l.objects.Get(ctx, id.resource.GroupVersionResource, id.namespace, id.name, "", nil)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if o.GetUID() != id.uid {
		return nil, nil
	}
	return o, nil
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	if k == rediscover {
		return l.discover(ctx)
	}
	n := l.graph.get(types.UID(k.Name))
	if n == nil {
		return nil
	}
	if n.orphaning {
		return l.orphan(ctx, n)
	}
	if n.deleting && !n.foreground {
		return nil
	}
	now, err := l.read(ctx, &n.identity)
	if err != nil {
		return err
	}
	if now == nil {
		l.wake(l.graph.remove(n.uid)) // the mirror will say so too
		return nil
	}
	if n.foreground {
		return l.foreground(ctx, n, now)
	}
	return l.collect(ctx, n, now)
}

// collect deletes n if its owners are gone, and drops references to those that are.
func (l *loop) collect(ctx context.Context, n *node, now api.Object) error {
	refs := now.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	s, err := l.standing(ctx, n, refs)
	if errors.Is(err, errImpossible) {
		l.Log.Debug("cluster-scoped object refers to a namespaced owner", "object", n.name, "resource", n.resource.Resource)
		return nil
	}
	if err != nil {
		return err
	}
	p := decide(s, now.GetFinalizers(), l.graph.of(n.uid))
	if len(p.unlink) > 0 {
		return l.setOwners(ctx, n, now, without(refs, p.unlink...))
	}
	if p.unblock {
		if err := l.setOwners(ctx, n, now, unblocked(refs)); err != nil {
			return err
		}
		if now, err = l.read(ctx, &n.identity); err != nil || now == nil {
			return err
		}
	}
	if p.remove == "" {
		return nil
	}
	uid, rv := n.uid, now.GetResourceVersion()
	err = l.Client.Delete(ctx, n.resource.GroupVersionResource, n.namespace, n.name,
		&metav1.DeleteOptions{PropagationPolicy: &p.remove, Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}})
	return controller.Ignore(err, apierrors.IsNotFound)
}

// errImpossible is for owners that cannot exist as referred to.
var errImpossible = errors.New("cluster-scoped objects cannot refer to namespaced owners")

// standing asks how each owner is.
func (l *loop) standing(ctx context.Context, n *node, refs []metav1.OwnerReference) (standing, error) {
	var s standing
	for i := range refs {
		r := &refs[i]
		owner := l.graph.get(r.UID)
		if owner != nil && owner.is(r, n.namespace) && !owner.foreground {
			s.solid = append(s.solid, r.UID)
			continue
		}
		o, err := l.owner(ctx, n, r)
		switch {
		case err != nil:
			return s, err
		case o == nil:
			s.dangling = append(s.dangling, r.UID)
		case o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents):
			s.waiting = append(s.waiting, r.UID)
		default:
			s.solid = append(s.solid, r.UID)
		}
	}
	return s, nil
}

// owner reads the owner that a reference of n means; nil when it is gone.
func (l *loop) owner(ctx context.Context, n *node, r *metav1.OwnerReference) (api.Object, error) {
	s, ok := l.lookup(r)
	if !ok {
		l.mu.Lock()
		l.unknown[n.uid] = true
		l.mu.Unlock()
		return nil, fmt.Errorf("unable to get REST mapping for %s/%s", r.APIVersion, r.Kind)
	}
	at := coordinates{s.Group, s.Kind, "", r.Name, r.UID}
	if s.Namespaced {
		if n.namespace == "" {
			return nil, errImpossible
		}
		at.namespace = n.namespace
	}
	if l.gone.has(at) {
		return nil, nil
	}
	o, err := l.read(ctx, &identity{s, at.namespace, r.Name, r.UID})
	if err == nil && o == nil {
		l.gone.add(at)
	}
	return o, err
}

// foreground lets n go once nothing that blocks it is left.
func (l *loop) foreground(ctx context.Context, n *node, now api.Object) error {
	waiting := blocking(n.uid, l.graph.of(n.uid))
	if len(waiting) == 0 {
		return l.dropFinalizer(ctx, n, now, metav1.FinalizerDeleteDependents)
	}
	for _, d := range waiting {
		if !d.foreground {
			l.Add(controller.Key{Name: string(d.uid)})
		}
	}
	return nil
}

// orphan makes n's dependents independent and lets n go.
func (l *loop) orphan(ctx context.Context, n *node) error {
	dependents := l.graph.of(n.uid)
	_, err := controller.All(ctx, len(dependents), func(ctx context.Context, i int) error {
		d := dependents[i]
		now, err := l.read(ctx, &d.identity)
		if err != nil || now == nil {
			return err
		}
		left := without(now.GetOwnerReferences(), n.uid)
		if len(left) == len(now.GetOwnerReferences()) {
			return nil
		}
		return l.setOwners(ctx, d, now, left)
	})
	if err != nil {
		return fmt.Errorf("orphan dependents of %s: %w", n.name, err)
	}
	now, err := l.read(ctx, &n.identity)
	if err != nil || now == nil {
		return err
	}
	return l.dropFinalizer(ctx, n, now, metav1.FinalizerOrphanDependents)
}

func (l *loop) dropFinalizer(ctx context.Context, n *node, now api.Object, name string) error {
	have := now.GetFinalizers()
	left := slices.DeleteFunc(slices.Clone(have), func(f string) bool { return f == name })
	if len(left) == len(have) {
		return nil
	}
	return l.patch(ctx, n, now, "finalizers", left)
}

func (l *loop) setOwners(ctx context.Context, n *node, now api.Object, refs []metav1.OwnerReference) error {
	return l.patch(ctx, n, now, "ownerReferences", refs)
}

// patch replaces a list in n's metadata, if n is still as now shows it. Custom
// resources know no strategic patches, so it is a merge for all.
func (l *loop) patch(ctx context.Context, n *node, now api.Object, field string, list any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.uid, "resourceVersion": now.GetResourceVersion(), field: list}})
	if err != nil {
		return err
	}
	_, err = l.Client.Patch(ctx, n.resource.GroupVersionResource, n.namespace, n.name, "", types.MergePatchType, data, nil)
	return controller.Ignore(err, apierrors.IsNotFound)
}

// coordinates say which owner is gone from where.
type coordinates struct {
	group, kind, namespace, name string
	uid                          types.UID
}

// absent remembers owners that are gone, to ask once for many dependents. UIDs
// never come back, so forgetting is the only thing that may go wrong.
type absent struct {
	mu   sync.Mutex
	gone map[coordinates]bool
}

const absentLimit = 4096

func (a *absent) add(c coordinates) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone == nil || len(a.gone) >= absentLimit {
		a.gone = map[coordinates]bool{}
	}
	a.gone[c] = true
}

func (a *absent) has(c coordinates) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gone[c]
}

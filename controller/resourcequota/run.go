// Package resourcequota counts what every ResourceQuota's namespace uses.
//
// Job: the full count, after quotas change and when objects come and go.
//
// Not its job: refusing what does not fit: admission charges the same status
// object by object, and this loop puts right what went astray.
package resourcequota

import (
	"context"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
	"github.com/sampan-dev/sampan/semantics/quota"
)

const (
	// settle is how long a count waits after objects came or admission charged:
	// what was charged may not be stored yet, and a count without it would give
	// its room away.
	settle = 5 * time.Second
	// young is how old a charge must be before less than it is written.
	young = 2 * time.Second
	// lookAgain is when a resource that nothing serves is looked for again.
	lookAgain = 10 * time.Second
)

type loop struct {
	*controller.Loop
	mirrors *client.Mirrors
	quotas  *client.Mirror[corev1.ResourceQuota]

	mu      sync.Mutex
	charged map[controller.Key]charge // the last seen of each quota
	counted map[schema.GroupResource]*client.ObjectMirror
}

// charge is what a quota said was used, and since when; at is zero for what the
// quota said when it was first seen.
type charge struct {
	used corev1.ResourceList
	at   time.Time
}

// New returns the resourcequota loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{mirrors: d.Mirrors, charged: map[controller.Key]charge{}, counted: map[schema.GroupResource]*client.ObjectMirror{}}
	l.Loop = controller.NewLoop(d, "resourcequota", 5, l.reconcile)
	l.quotas = controller.Input(l.Loop, l.ofQuota)
	return l
}

// ofQuota counts at once when what is limited has changed; a charge by
// admission is checked later.
func (l *loop) ofQuota(old, new *corev1.ResourceQuota) []controller.Key {
	if new == nil {
		l.forget(client.KeyOf(old))
		return nil
	}
	l.fresh(new)
	switch {
	case old == nil, !equality.Semantic.DeepEqual(old.Spec, new.Spec), !equality.Semantic.DeepEqual(new.Spec.Hard, new.Status.Hard):
		return controller.Self(old, new)
	case !equality.Semantic.DeepEqual(old.Status.Used, new.Status.Used):
		l.After(client.KeyOf(new), settle)
	}
	return nil
}

func (l *loop) forget(k controller.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.charged, k)
}

// fresh returns how long a quota's last charge is to be believed. A count can
// meet a charge before the loop is told of it, so both ask here: who sees it
// first sets its time.
func (l *loop) fresh(q *corev1.ResourceQuota) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, seen := l.charged[client.KeyOf(q)]
	if !seen || !equality.Semantic.DeepEqual(c.used, q.Status.Used) {
		c.used = q.Status.Used
		if seen {
			c.at = clock.Now()
		}
		l.charged[client.KeyOf(q)] = c
	}
	return clock.Until(c.at.Add(young))
}

// below says whether a count is less than what was charged of anything.
func below(used, charged corev1.ResourceList) bool {
	for name, q := range charged {
		if n, counted := used[name]; counted && n.Cmp(q) < 0 {
			return true
		}
	}
	return false
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	q, ok := l.quotas.Get(k.Namespace, k.Name)
	if !ok {
		return nil
	}
	used := corev1.ResourceList{}
	for name := range q.Spec.Hard {
		used[name] = resource.Quantity{Format: resource.DecimalSI}
	}
	for _, gr := range kinds(q.Spec.Hard) {
		m, err := l.mirror(ctx, gr)
		if err != nil {
			return err
		}
		if m == nil {
			l.After(k, lookAgain)
			continue // nothing serves the resource: there can be none
		}
		for _, o := range m.List(k.Namespace) {
			if !quota.Counts(q, o) {
				continue
			}
			for name, n := range quota.Usage(gr, o, clock.Now()) {
				if sum, wanted := used[name]; wanted {
					sum.Add(n)
					used[name] = sum
				}
			}
		}
	}
	if equality.Semantic.DeepEqual(q.Status.Hard, q.Spec.Hard) && equality.Semantic.DeepEqual(q.Status.Used, used) {
		return nil
	}
	if wait := l.fresh(q); wait > 0 && below(used, q.Status.Used) {
		l.After(k, wait) // what was charged may not be stored yet
		return nil
	}
	next := q.DeepCopy()
	next.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: used}
	out, err := client.Of[corev1.ResourceQuota](l.Client, k.Namespace).UpdateStatus(ctx, next)
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	controller.Wrote(&l.Unseen, k, l.quotas, out)
	return nil
}

// kinds lists the resources that must be counted for the named amounts.
func kinds(hard corev1.ResourceList) []schema.GroupResource {
	var out []schema.GroupResource
	seen := map[schema.GroupResource]bool{}
	for name := range hard {
		gr := kindOf(string(name))
		if !seen[gr] {
			seen[gr] = true
			out = append(out, gr)
		}
	}
	return out
}

func kindOf(name string) schema.GroupResource {
	if counted, ok := strings.CutPrefix(name, "count/"); ok {
		return schema.ParseGroupResource(counted)
	}
	switch {
	case strings.HasSuffix(name, quota.DeviceClassSuffix):
		return schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}
	case name == "services" || strings.HasPrefix(name, "services."):
		return schema.GroupResource{Resource: "services"}
	case name == "persistentvolumeclaims" || strings.HasSuffix(name, "requests.storage") || strings.HasSuffix(name, "storageclass.storage.k8s.io/persistentvolumeclaims"):
		return schema.GroupResource{Resource: "persistentvolumeclaims"}
	case name == "configmaps" || name == "secrets" || name == "replicationcontrollers" || name == "resourcequotas":
		return schema.GroupResource{Resource: name}
	}
	return schema.GroupResource{Resource: "pods"}
}

// mirror returns the synced mirror of a resource, nil if nothing serves it.
func (l *loop) mirror(ctx context.Context, gr schema.GroupResource) (*client.ObjectMirror, error) {
	l.mu.Lock()
	m := l.counted[gr]
	l.mu.Unlock()
	if m == nil {
		gvr := gr.WithVersion("v1")
		if gr.Group != "" {
			served, err := client.Discover(ctx, l.Client)
			found := false
			for _, s := range served {
				if s.GroupResource() == gr && s.Has("list", "watch") {
					gvr, found = s.GroupVersionResource, true
				}
			}
			if !found {
				return nil, err
			}
		}
		l.mu.Lock()
		if m = l.counted[gr]; m == nil {
			m = l.mirrorOf(gr, gvr)
			l.counted[gr] = m
		}
		l.mu.Unlock()
	}
	return m, m.WaitSynced(ctx)
}

// mirrorOf starts watching a resource; usage needs whole objects where more than their number counts.
func (l *loop) mirrorOf(gr schema.GroupResource, gvr schema.GroupVersionResource) *client.ObjectMirror {
	switch gr {
	case schema.GroupResource{Resource: "pods"}:
		client.MirrorOf[corev1.Pod](l.mirrors, client.MirrorOptions{})
	case schema.GroupResource{Resource: "services"}:
		client.MirrorOf[corev1.Service](l.mirrors, client.MirrorOptions{})
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		client.MirrorOf[devicev1.ResourceClaim](l.mirrors, client.MirrorOptions{})
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		client.MirrorOf[corev1.PersistentVolumeClaim](l.mirrors, client.MirrorOptions{})
	}
	m := l.mirrors.Objects(gvr)
	m.OnChange(func(old, new api.Object) {
		some, wait := new, settle
		switch {
		case new == nil:
			some, wait = old, 0
		case old != nil && !matters(old, new):
			return
		}
		for _, q := range l.quotas.List(some.GetNamespace()) {
			l.After(client.KeyOf(q), wait)
		}
	})
	return m
}

// matters says whether an update can change what an object uses.
func matters(old, new api.Object) bool {
	a, ok := old.(*corev1.Pod)
	b, ok2 := new.(*corev1.Pod)
	if !ok || !ok2 {
		return old.GetGeneration() != new.GetGeneration() || new.GetGeneration() == 0
	}
	return pod.Finished(a) != pod.Finished(b) || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) || a.Generation != b.Generation
}

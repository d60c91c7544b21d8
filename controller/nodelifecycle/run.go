package nodelifecycle

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// Config says how long nodes may be silent. Zero values are upstream's defaults.
type Config struct {
	Period       time.Duration // between looks at all nodes: 5 s
	Grace        time.Duration // a node silent for so long is unknown: 50 s
	StartupGrace time.Duration // the same for one that never told anything: 60 s
}

// Check fills in defaults.
func (c *Config) Check() error {
	for d, v := range map[*time.Duration]time.Duration{&c.Period: 5 * time.Second, &c.Grace: 50 * time.Second, &c.StartupGrace: time.Minute} {
		if *d == 0 {
			*d = v
		}
	}
	return nil
}

const byNode = "node"

type loop struct {
	*controller.Loop
	cfg    Config
	nodes  *client.Mirror[corev1.Node]
	leases *client.Mirror[coordinationv1.Lease]
	pods   *client.Mirror[corev1.Pod]

	mu    sync.Mutex
	seen  map[string]*health
	next  map[string]time.Time // when a zone's next node may be tainted
	zones map[string]zone
}

// health is what was seen of one node.
type health struct {
	uid      types.UID
	at       time.Time // of the last heartbeat, by our own clock
	observed corev1.ConditionStatus
}

// New returns the nodelifecycle loop.
func New(d controller.Deps, cfg Config) (controller.Controller, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	l := &loop{cfg: cfg, seen: map[string]*health{}, next: map[string]time.Time{}, zones: map[string]zone{}}
	l.Loop = controller.NewLoop(d, "node-lifecycle", 8, l.reconcile).As(d, "node-controller")
	l.nodes = controller.Input(l.Loop, l.ofNode)
	l.leases = client.MirrorOf[coordinationv1.Lease](d.Mirrors, client.MirrorOptions{Namespace: corev1.NamespaceNodeLease})
	controller.Watch(l.Loop, l.leases, l.ofLease)
	l.pods = controller.Input[corev1.Pod](l.Loop, nil)
	l.pods.Index(byNode, func(p *corev1.Pod) []string { return []string{p.Spec.NodeName} })
	l.Every(cfg.Period, func(context.Context) { l.look() })
	return l, nil
}

// ofNode notes heartbeats in conditions and comings and goings.
func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	if new == nil {
		delete(l.seen, old.Name)
		l.tell(old, "RemovingNode", "Removing Node "+old.Name+" from Controller")
		return nil
	}
	h := l.seen[new.Name]
	if h == nil || h.uid != new.UID {
		h = &health{uid: new.UID, at: clock.Now(), observed: readiness(new)}
		if h.observed == "" {
			h.at = new.CreationTimestamp.Time
		}
		l.seen[new.Name] = h
		l.tell(new, "RegisteredNode", "Registered Node "+new.Name+" in Controller")
	} else if was, is := condition(old, corev1.NodeReady), condition(new, corev1.NodeReady); is != nil && (was == nil || !was.LastHeartbeatTime.Equal(&is.LastHeartbeatTime)) {
		h.at = clock.Now()
	}
	if old != nil && old.UID == new.UID && equality.Semantic.DeepEqual(old.Spec, new.Spec) && slices.EqualFunc(old.Status.Conditions, new.Status.Conditions, sameStatus) {
		return nil
	}
	return []controller.Key{client.KeyOf(new)}
}

func sameStatus(a, b corev1.NodeCondition) bool { return a.Type == b.Type && a.Status == b.Status }

func (l *loop) tell(n *corev1.Node, reason, event string) {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}
	l.Events.EventRef(ref, corev1.EventTypeNormal, reason, "Node %s event: %s", n.Name, event)
}

// ofLease notes heartbeats in leases.
func (l *loop) ofLease(old, new *coordinationv1.Lease) []controller.Key {
	if old == nil || new == nil || new.Spec.RenewTime == nil || new.Spec.RenewTime.Equal(old.Spec.RenewTime) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.seen[new.Name]; h != nil {
		h.at = clock.Now()
	}
	return nil
}

// look counts zones and finds nodes that need work because time has passed.
func (l *loop) look() {
	nodes := l.nodes.List("")
	zones := map[string]zone{}
	for _, n := range nodes {
		z := zones[zoneOf(n)]
		if readiness(n) == corev1.ConditionTrue {
			z.ready++
		} else {
			z.failed++
		}
		zones[zoneOf(n)] = z
	}
	l.mu.Lock()
	l.zones = zones
	l.mu.Unlock()
	for _, n := range nodes {
		if readiness(n) != corev1.ConditionTrue || l.silent(n) {
			l.Add(client.KeyOf(n))
		}
	}
}

// silent says whether the node has been so for too long.
func (l *loop) silent(n *corev1.Node) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.seen[n.Name]
	if h == nil {
		return false
	}
	if readiness(n) == "" {
		return clock.Since(h.at) > l.cfg.StartupGrace
	}
	return clock.Since(h.at) > l.cfg.Grace
}

// evict says what may become of the node's NoExecute taints, and counts it
// against its zone when it gets one.
func (l *loop) evict(n *corev1.Node) eviction {
	l.mu.Lock()
	defer l.mu.Unlock()
	anyReady := false
	for _, z := range l.zones {
		anyReady = anyReady || z.ready > 0
	}
	name := zoneOf(n)
	switch {
	case !anyReady:
		return neverTaint
	case !lacksExecute(n):
		return mayTaint // it has what it should have
	}
	speed := l.zones[name].speed()
	if speed == 0 || clock.Now().Before(l.next[name]) {
		return waitTaint
	}
	l.next[name] = clock.Now().Add(time.Duration(float64(time.Second) / speed))
	return mayTaint
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	n, ok := l.nodes.Get("", k.Name)
	if !ok {
		return nil
	}
	nodes := client.Of[corev1.Node](l.Client, "")
	if l.silent(n) {
		if cs := silenced(n, clock.Now()); !equality.Semantic.DeepEqual(cs, n.Status.Conditions) {
			c := n.DeepCopy()
			c.Status.Conditions = cs
			updated, err := nodes.UpdateStatus(ctx, c)
			if err != nil {
				return controller.Ignore(err, apierrors.IsNotFound)
			}
			controller.Wrote(&l.Unseen, k, l.nodes, updated)
			n = updated
		}
	}
	if err := l.markPods(ctx, n); err != nil {
		return err
	}
	want := taints(n, l.evict(n), clock.Now())
	if sameTaints(want, n.Spec.Taints) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID, "resourceVersion": n.ResourceVersion},
		"spec":     map[string]any{"taints": want},
	})
	if err != nil {
		return err
	}
	wrote, err := nodes.Patch(ctx, n.Name, "", types.MergePatchType, patch)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.nodes, wrote)
	}
	return controller.Ignore(err, apierrors.IsNotFound)
}

func sameTaints(a, b []corev1.Taint) bool {
	return slices.EqualFunc(a, b, func(x, y corev1.Taint) bool { return x.MatchTaint(&y) && x.Value == y.Value })
}

// markPods takes the pods of a node that stopped being ready out of service. A
// kubelet that still talks corrects it; one that is silent cannot.
func (l *loop) markPods(ctx context.Context, n *corev1.Node) error {
	status := readiness(n)
	l.mu.Lock()
	h := l.seen[n.Name]
	failed := h != nil && h.observed == corev1.ConditionTrue && status != corev1.ConditionTrue
	l.mu.Unlock()
	if failed {
		l.Events.EventRef(&corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}, corev1.EventTypeNormal,
			"NodeNotReady", "Node %s status is now: %s", n.Name, "NodeNotReady")
	}
	if failed || status == corev1.ConditionUnknown {
		if err := l.unready(ctx, n.Name); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h != nil {
		h.observed = status
	}
	return nil
}

func (l *loop) unready(ctx context.Context, node string) error {
	pods := slices.DeleteFunc(l.pods.By(byNode, node), func(p *corev1.Pod) bool { return !pod.Ready(p) })
	_, err := controller.All(ctx, len(pods), func(ctx context.Context, i int) error {
		p := pods[i].DeepCopy()
		c := *pod.Condition(&p.Status, corev1.PodReady)
		c.Status = corev1.ConditionFalse
		pod.SetCondition(&p.Status, c, clock.Now())
		_, err := client.Of[corev1.Pod](l.Client, p.Namespace).UpdateStatus(ctx, p)
		if err == nil {
			l.Events.Event(p, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
		}
		return controller.Ignore(err, apierrors.IsNotFound)
	})
	return err
}

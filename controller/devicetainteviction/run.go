// Package devicetainteviction evicts pods whose devices have a NoExecute taint.
//
// Job: delete pods that use a tainted device at once, or when what their claims
// tolerate runs out. Taints are drivers', in ResourceSlices, and
// administrators', in DeviceTaintRules.
//
// Not its job: keeping new pods off such devices (scheduler).
//
// Invariants: a pod is deleted only while it has the device: its claim is
// allocated, and reserved for it; a limit counts from when the taint was added.
package devicetainteviction

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// byClaim files pods under the claims they use, byPool slices under their pool.
const (
	byClaim = "tainted claim"
	byPool  = "tainted pool"
)

type loop struct {
	*controller.Loop
	pods    *client.Mirror[corev1.Pod]
	claims  *client.Mirror[devicev1.ResourceClaim]
	slices  *client.Mirror[devicev1.ResourceSlice]
	rules   *client.Mirror[devicev1.DeviceTaintRule]
	deleted prometheus.Counter
	took    prometheus.Histogram

	mu      sync.Mutex
	pending map[controller.Key]types.UID // pods that are to be evicted later
}

// New returns the devicetainteviction loop.
func New(d controller.Deps) controller.Controller {
	const metric = "device_taint_eviction_controller_pod_"
	l := &loop{
		pending: map[controller.Key]types.UID{},
		deleted: d.Metrics.Counters(prometheus.CounterOpts{Name: metric + "deletions_total", Help: "Total number of Pods deleted by DeviceTaintEvictionController since its start."}).WithLabelValues(),
		took: d.Metrics.Histogram(prometheus.HistogramOpts{Name: metric + "deletion_duration_seconds", Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240},
			Help: "Latency, in seconds, between the time when a device taint effect has been activated and a Pod's deletion via DeviceTaintEvictionController."}),
	}
	l.Loop = controller.NewLoop(d, "device-taint-eviction", 8, l.reconcile)
	l.pods = controller.Input(l.Loop, ofPod)
	l.claims = controller.Input(l.Loop, l.ofClaim)
	l.slices = controller.Input(l.Loop, l.ofSlice)
	l.rules = controller.Input(l.Loop, l.ofRule)
	l.pods.Index(byClaim, func(p *corev1.Pod) []string {
		var out []string
		for _, name := range claimsOf(p) {
			out = append(out, p.Namespace+"/"+name)
		}
		return out
	})
	l.slices.Index(byPool, func(s *devicev1.ResourceSlice) []string { return []string{s.Spec.Driver + "/" + s.Spec.Pool.Name} })
	return l
}

// claimsOf names the claims that a pod uses, as far as they are made.
func claimsOf(p *corev1.Pod) []string {
	var out []string
	for _, c := range p.Spec.ResourceClaims {
		if c.ResourceClaimName != nil {
			out = append(out, *c.ResourceClaimName)
		}
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.ResourceClaimName != nil {
			out = append(out, *s.ResourceClaimName)
		}
	}
	return out
}

func ofPod(old, new *corev1.Pod) []controller.Key {
	if new == nil {
		return controller.Self(old, new)
	}
	if len(new.Spec.ResourceClaims) == 0 || new.Spec.NodeName == "" {
		return nil
	}
	return controller.Self(old, new)
}

func (l *loop) ofClaim(old, new *devicev1.ResourceClaim) []controller.Key {
	k := controller.Self(old, new)[0]
	var keys []controller.Key
	for _, p := range l.pods.By(byClaim, k.String()) {
		keys = append(keys, client.KeyOf(p))
	}
	return keys
}

// users are the pods of claims that have a device for which is says yes.
func (l *loop) users(is func(*devicev1.DeviceRequestAllocationResult) bool) []controller.Key {
	var keys []controller.Key
	for _, c := range l.claims.List("") {
		if c.Status.Allocation == nil {
			continue
		}
		for i := range c.Status.Allocation.Devices.Results {
			if is(&c.Status.Allocation.Devices.Results[i]) {
				keys = append(keys, l.ofClaim(nil, c)...)
				break
			}
		}
	}
	return keys
}

func (l *loop) ofSlice(old, new *devicev1.ResourceSlice) []controller.Key {
	if old != nil && new != nil && equality.Semantic.DeepEqual(old.Spec, new.Spec) {
		return nil
	}
	s := new
	if s == nil {
		s = old
	}
	return l.users(func(r *devicev1.DeviceRequestAllocationResult) bool {
		return r.Driver == s.Spec.Driver && r.Pool == s.Spec.Pool.Name
	})
}

func (l *loop) ofRule(old, new *devicev1.DeviceTaintRule) []controller.Key {
	if old != nil && new != nil && equality.Semantic.DeepEqual(old.Spec, new.Spec) {
		return nil
	}
	return l.users(func(r *devicev1.DeviceRequestAllocationResult) bool {
		return old != nil && chosen(old, r) || new != nil && chosen(new, r)
	})
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	p, ok := l.pods.Get(k.Namespace, k.Name)
	if !ok || p.DeletionTimestamp != nil || p.Spec.NodeName == "" || pod.Finished(p) {
		l.calm(k, nil)
		return nil
	}
	at, ok := l.when(p)
	if !ok {
		l.calm(k, p)
		return nil
	}
	if left := clock.Until(at); left > 0 {
		l.mu.Lock()
		l.pending[k] = p.UID
		l.mu.Unlock()
		l.After(k, left)
		return nil
	}
	return l.evict(ctx, p, at)
}

// when is the time at which a pod has to go; ok is false when it may stay.
func (l *loop) when(p *corev1.Pod) (at time.Time, ok bool) {
	for _, name := range claimsOf(p) {
		c, found := l.claims.Get(p.Namespace, name)
		if !found || c.Status.Allocation == nil || !reserved(c, p) {
			continue
		}
		for i := range c.Status.Allocation.Devices.Results {
			r := &c.Status.Allocation.Devices.Results[i]
			for _, t := range l.taints(r) {
				if end, ends := patience(&t, r.Tolerations); ends && (!ok || end.Before(at)) {
					at, ok = end, true
				}
			}
		}
	}
	return at, ok
}

// taints are those of an allocated device that evict.
func (l *loop) taints(r *devicev1.DeviceRequestAllocationResult) []devicev1.DeviceTaint {
	var out []devicev1.DeviceTaint
	if d := device(l.slices.By(byPool, r.Driver+"/"+r.Pool), r.Device); d != nil {
		out = append(out, d.Taints...)
	}
	for _, rule := range l.rules.List("") {
		if chosen(rule, r) {
			out = append(out, rule.Spec.Taint)
		}
	}
	return executing(out)
}

// calm forgets that a pod was to be evicted; p is told when it is there.
func (l *loop) calm(k controller.Key, p *corev1.Pod) {
	l.mu.Lock()
	uid, had := l.pending[k]
	delete(l.pending, k)
	l.mu.Unlock()
	if had && p != nil && p.UID == uid {
		l.Events.Event(p, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Cancelling deletion")
	}
}

func (l *loop) evict(ctx context.Context, p *corev1.Pod, since time.Time) error {
	k := client.KeyOf(p)
	l.Events.Event(p, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Marking for deletion")
	pods := client.Of[corev1.Pod](l.Client, p.Namespace)
	c := p.DeepCopy()
	if pod.SetCondition(&c.Status, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation,
		Reason: "DeletionByDeviceTaintManager", Message: "Device Taint manager: deleting due to NoExecute taint"}, clock.Now()) {
		patch, err := conditionPatch(p, pod.Condition(&c.Status, corev1.DisruptionTarget))
		if err == nil {
			_, err = pods.Patch(ctx, p.Name, "status", types.StrategicMergePatchType, patch)
		}
		if err != nil {
			return controller.Ignore(err, apierrors.IsNotFound)
		}
	}
	err := pods.Delete(ctx, p.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if err != nil {
		return controller.Ignore(err, apierrors.IsNotFound)
	}
	controller.Removed(&l.Unseen, k, l.pods, p)
	l.deleted.Inc()
	l.took.Observe(clock.Since(since).Seconds())
	l.mu.Lock()
	delete(l.pending, k)
	l.mu.Unlock()
	return nil
}

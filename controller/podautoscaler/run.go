package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
)

type autoscaler = autoscalingv2.HorizontalPodAutoscaler

// period is upstream's --horizontal-pod-autoscaler-sync-period.
const period = 15 * time.Second

type loop struct {
	*controller.Loop
	scalers *client.Mirror[autoscaler]
	pods    *client.Mirror[corev1.Pod]
	meter   meter

	kinds     controller.Kinds
	mu        sync.Mutex
	memories  map[controller.Key]*memory
	selectors map[controller.Key]labels.Selector
}

// New returns the podautoscaler loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{memories: map[controller.Key]*memory{}, selectors: map[controller.Key]labels.Selector{}}
	l.Loop = controller.NewLoop(d, "horizontal-pod-autoscaler", 5, l.reconcile).As(d, "horizontal-pod-autoscaler")
	l.meter = meter{l.Client}
	l.scalers = controller.Input(l.Loop, func(old, new *autoscaler) []controller.Key {
		if old != nil && new != nil && equality.Semantic.DeepEqual(old.Spec, new.Spec) {
			return nil // its own writes; the timer brings it back
		}
		return controller.Self(old, new)
	})
	l.pods = controller.Input[corev1.Pod](l.Loop, nil)
	return l
}

func (l *loop) memory(k controller.Key) *memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.memories[k]
	if m == nil {
		m = &memory{}
		l.memories[k] = m
	}
	return m
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	now, ok := l.scalers.Get(k.Namespace, k.Name)
	if !ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.memories, k)
		delete(l.selectors, k)
		return nil
	}
	l.After(k, period)
	h := now.DeepCopy()
	if err := l.pass(ctx, h, l.memory(k)); err != nil {
		l.Log.Debug("could not autoscale", "key", k.String(), "err", err)
	}
	if equality.Semantic.DeepEqual(now.Status, h.Status) {
		return nil
	}
	wrote, err := client.Of[autoscaler](l.Client, k.Namespace).UpdateStatus(ctx, h)
	if err == nil {
		controller.Wrote(&l.Unseen, k, l.scalers, wrote)
		return nil
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	l.Events.Event(h, corev1.EventTypeWarning, "FailedUpdateStatus", "%v", err)
	return fmt.Errorf("failed to update status for %s: %w", k.Name, err)
}

func set(h *autoscaler, kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, format string, args ...any) {
	i := slices.IndexFunc(h.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == kind })
	if i < 0 {
		h.Status.Conditions = append(h.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind})
		i = len(h.Status.Conditions) - 1
	}
	c := &h.Status.Conditions[i]
	if c.Status != status {
		c.LastTransitionTime = metav1.NewTime(clock.Now())
	}
	c.Status, c.Reason, c.Message = status, reason, fmt.Sprintf(format, args...)
}

func truth(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// pass does one round on a copy, whose status it changes.
func (l *loop) pass(ctx context.Context, h *autoscaler, m *memory) error {
	scale, r, err := l.scale(ctx, h)
	if err != nil {
		l.Events.Event(h, corev1.EventTypeWarning, "FailedGetScale", "%v", err)
		set(h, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "the HPA controller was unable to get the target's current scale: %v", err)
		return err
	}
	set(h, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	now, current, least := clock.Now(), scale.Spec.Replicas, ptr.Deref(h.Spec.MinReplicas, 1)
	m.first(now, current)
	desired, reason := current, ""
	var failure error
	var statuses []autoscalingv2.MetricStatus
	switch {
	case current == 0 && least != 0:
		set(h, autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
	case current > h.Spec.MaxReplicas:
		desired, reason = h.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
	case current < least:
		desired, reason = least, "Current number of replicas below Spec.MinReplicas"
	default:
		var best proposal
		best, statuses, failure = l.compute(ctx, h, scale)
		if best.replicas < 0 {
			status(h, current, h.Status.DesiredReplicas, statuses)
			l.Events.Event(h, corev1.EventTypeWarning, "FailedComputeMetricsReplicas", "%v", failure)
			return failure
		}
		if best.replicas > current {
			reason = best.name + " above target"
		} else {
			reason = "All metrics below target"
		}
		desired = l.allowed(h, m, now, current, best.replicas, least)
	}
	if desired != current {
		if err := l.rescale(ctx, h, scale, r, desired); err != nil {
			l.Events.Event(h, corev1.EventTypeWarning, "FailedRescale", "New size: %d; reason: %s; error: %v", desired, reason, err)
			set(h, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: %v", err)
			status(h, current, h.Status.DesiredReplicas, statuses)
			return err
		}
		set(h, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", "the HPA controller was able to update the target scale to %d", desired)
		l.Events.Event(h, corev1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", desired, reason)
		m.scaled(now, current, desired)
		at := metav1.NewTime(now)
		h.Status.LastScaleTime = &at
	}
	status(h, current, desired, statuses)
	return failure
}

func status(h *autoscaler, current, desired int32, metrics []autoscalingv2.MetricStatus) {
	h.Status.ObservedGeneration = nil
	h.Status.CurrentReplicas, h.Status.DesiredReplicas, h.Status.CurrentMetrics = current, desired, metrics
}

// allowed weighs and cuts what the metrics ask for.
func (l *loop) allowed(h *autoscaler, m *memory, now time.Time, current, wanted, least int32) int32 {
	b := h.Spec.Behavior
	m.forget(now, b)
	stable, v := m.stabilize(now, b, current, wanted)
	set(h, autoscalingv2.AbleToScale, corev1.ConditionTrue, v.reason, "%s", v.message)
	out, v := m.limit(now, b, current, stable, least, h.Spec.MaxReplicas)
	set(h, autoscalingv2.ScalingLimited, truth(v.limited), v.reason, "%s", v.message)
	return out
}

// compute asks all metrics; the one that asks for most counts. Replicas below
// zero mean that nothing can be said.
func (l *loop) compute(ctx context.Context, h *autoscaler, scale *autoscalingv1.Scale) (proposal, []autoscalingv2.MetricStatus, error) {
	none := proposal{replicas: -1}
	sel, err := l.selector(h, scale.Status.Selector)
	if err != nil {
		return none, nil, err
	}
	t := &target{h: h, current: scale.Spec.Replicas, status: scale.Status.Replicas, selector: sel}
	for _, p := range l.pods.List(h.Namespace) {
		if sel.Matches(labels.Set(p.Labels)) {
			t.pods = append(t.pods, p)
		}
	}
	var best, first proposal
	var statuses []autoscalingv2.MetricStatus
	bad := 0
	for i := range h.Spec.Metrics {
		p := l.propose(ctx, t, &h.Spec.Metrics[i])
		if p.err != nil {
			l.Events.Event(h, corev1.EventTypeWarning, p.reason, "%v", unwrapOnce(p.err))
			if bad++; bad == 1 {
				first = p
			}
			statuses = append(statuses, autoscalingv2.MetricStatus{})
			continue
		}
		statuses = append(statuses, p.status)
		if best.name == "" || p.replicas > best.replicas {
			best = p
		}
	}
	if bad > 0 {
		err = fmt.Errorf("invalid metrics (%d invalid out of %d), first error is: %w", bad, len(h.Spec.Metrics), first.err)
	}
	if bad == len(h.Spec.Metrics) || bad > 0 && best.replicas < t.current {
		set(h, autoscalingv2.ScalingActive, corev1.ConditionFalse, first.reason, "the HPA was unable to compute the replica count: %v", unwrapOnce(first.err))
		return none, statuses, err
	}
	set(h, autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from %s", best.name)
	return best, statuses, err
}

// unwrapOnce takes the outermost words off: conditions and events lack them.
func unwrapOnce(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// selector reads the target's selector and sees that no other autoscaler has the same pods.
func (l *loop) selector(h *autoscaler, text string) (labels.Selector, error) {
	fail := func(event, reason, message string) (labels.Selector, error) {
		l.Events.Event(h, corev1.EventTypeWarning, event, "%s", message)
		said := message
		if event == "SelectorRequired" {
			said = "the HPA target's scale is missing a selector"
		}
		set(h, autoscalingv2.ScalingActive, corev1.ConditionFalse, reason, "%s", said)
		return nil, errors.New(message)
	}
	if text == "" {
		return fail("SelectorRequired", "InvalidSelector", "selector is required")
	}
	sel, err := labels.Parse(text)
	if err != nil {
		return fail("InvalidSelector", "InvalidSelector", fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err))
	}
	k := client.KeyOf(h)
	l.mu.Lock()
	l.selectors[k] = sel
	others := map[string]labels.Selector{}
	for o, s := range l.selectors {
		if o.Namespace == k.Namespace {
			others[o.Name] = s
		}
	}
	l.mu.Unlock()
	rivals := map[string]bool{}
	for _, p := range l.pods.List(h.Namespace) {
		if !sel.Matches(labels.Set(p.Labels)) {
			continue
		}
		for name, s := range others {
			if s.Matches(labels.Set(p.Labels)) {
				rivals[h.Namespace+"/"+name] = true
			}
		}
	}
	if len(rivals) > 1 {
		var names []string
		for n := range rivals {
			names = append(names, n)
		}
		slices.Sort(names)
		return fail("AmbiguousSelector", "AmbiguousSelector", fmt.Sprintf("pods by selector %v are controlled by multiple HPAs: %v", text, names))
	}
	return sel, nil
}

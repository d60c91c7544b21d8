package podautoscaler

import (
	"context"
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/kit/clock"
)

// proposal is what one metric asks for.
type proposal struct {
	replicas int32
	name     string // of the metric, for people
	status   autoscalingv2.MetricStatus
	reason   string // of failure
	err      error
}

// target is what is scaled.
type target struct {
	h               *autoscalingv2.HorizontalPodAutoscaler
	current, status int32 // replicas wished for, and there
	selector        labels.Selector
	pods            []*corev1.Pod
}

func milli(v int64, name corev1.ResourceName) *resource.Quantity {
	if name == corev1.ResourceMemory {
		return resource.NewMilliQuantity(v, resource.BinarySI)
	}
	return resource.NewMilliQuantity(v, resource.DecimalSI)
}

// propose asks one metric.
func (l *loop) propose(ctx context.Context, t *target, m *autoscalingv2.MetricSpec) proposal {
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		p, value := l.resource(ctx, t, m.Resource.Target, m.Resource.Name, "")
		p.reason = "FailedGetResourceMetric"
		if p.err != nil {
			p.err = fmt.Errorf("failed to get %s resource metric value: %w", m.Resource.Name, p.err)
		}
		p.status = autoscalingv2.MetricStatus{Type: m.Type, Resource: &autoscalingv2.ResourceMetricStatus{Name: m.Resource.Name, Current: value}}
		return p
	case autoscalingv2.ContainerResourceMetricSourceType:
		c := m.ContainerResource
		p, value := l.resource(ctx, t, c.Target, c.Name, c.Container)
		p.reason = "FailedGetContainerResourceMetric"
		if p.err != nil {
			p.err = fmt.Errorf("failed to get %s container metric value: %w", c.Container, p.err)
		}
		p.status = autoscalingv2.MetricStatus{Type: m.Type, ContainerResource: &autoscalingv2.ContainerResourceMetricStatus{Name: c.Name, Container: c.Container, Current: value}}
		return p
	case autoscalingv2.PodsMetricSourceType:
		return l.ofPods(ctx, t, m)
	case autoscalingv2.ObjectMetricSourceType:
		return l.ofObject(ctx, t, m)
	case autoscalingv2.ExternalMetricSourceType:
		return l.external(ctx, t, m)
	}
	return proposal{reason: "InvalidMetricSourceType", err: fmt.Errorf("unknown metric source type %q", m.Type)}
}

func (l *loop) resource(ctx context.Context, t *target, want autoscalingv2.MetricTarget, name corev1.ResourceName, container string) (proposal, autoscalingv2.MetricValueStatus) {
	var status autoscalingv2.MetricValueStatus
	what, g := "utilization", goal{}
	switch {
	case want.AverageValue != nil:
		what, g.average = "usage", want.AverageValue.MilliValue()
	case want.AverageUtilization != nil:
		g.percent = *want.AverageUtilization
	default:
		return proposal{err: errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")}, status
	}
	samples, err := l.meter.used(ctx, t.h.Namespace, t.selector, container, name)
	if err == nil && want.AverageValue == nil {
		g.requests, err = requests(t.pods, container, name)
	}
	var a answer
	if err == nil {
		a, err = decide(t.pods, samples, g, t.current, toleranceOf(t.h), name == corev1.ResourceCPU, clock.Now())
	}
	if err != nil {
		return proposal{err: fmt.Errorf("failed to get %s %s: %w", name, what, err)}, status
	}
	p := proposal{replicas: a.replicas, name: fmt.Sprintf("%s resource", name)}
	status.AverageValue = milli(a.value, name)
	if want.AverageValue == nil {
		status.AverageUtilization = &a.percent
		kind := "resource"
		if container != "" {
			kind = "container resource"
		}
		p.name = fmt.Sprintf("%s %s utilization (percentage of request)", name, kind)
	}
	return p, status
}

func (l *loop) ofPods(ctx context.Context, t *target, m *autoscalingv2.MetricSpec) proposal {
	p := proposal{reason: "FailedGetPodsMetric", name: "pods metric " + m.Pods.Metric.Name}
	fail := func(err error) proposal {
		p.err = fmt.Errorf("failed to get pods metric value: %w", err)
		return p
	}
	of, err := metav1.LabelSelectorAsSelector(m.Pods.Metric.Selector)
	if err != nil {
		return fail(err)
	}
	samples, err := l.meter.ofPods(ctx, t.h.Namespace, m.Pods.Metric.Name, t.selector, everything(m.Pods.Metric.Selector, of))
	if err != nil {
		return fail(err)
	}
	a, err := decide(t.pods, samples, goal{average: m.Pods.Target.AverageValue.MilliValue()}, t.current, toleranceOf(t.h), false, clock.Now())
	if err != nil {
		return fail(err)
	}
	p.replicas = a.replicas
	p.status = autoscalingv2.MetricStatus{Type: m.Type, Pods: &autoscalingv2.PodsMetricStatus{Metric: m.Pods.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: milli(a.value, "")}}}
	return p
}

// everything is a selector that, when not given, chooses all.
func everything(given *metav1.LabelSelector, s labels.Selector) labels.Selector {
	if given == nil {
		return labels.Everything()
	}
	return s
}

func (l *loop) ofObject(ctx context.Context, t *target, m *autoscalingv2.MetricSpec) proposal {
	o := m.Object
	p := proposal{reason: "FailedGetObjectMetric", name: fmt.Sprintf("%s metric %s", o.DescribedObject.Kind, o.Metric.Name)}
	fail := func(err error) proposal {
		p.err = fmt.Errorf("failed to get object metric value: %w", err)
		return p
	}
	of, err := metav1.LabelSelectorAsSelector(o.Metric.Selector)
	if err != nil {
		return fail(err)
	}
	r, err := l.resourceOf(ctx, o.DescribedObject.APIVersion, o.DescribedObject.Kind)
	if err != nil {
		return fail(err)
	}
	used, err := l.meter.ofObject(ctx, t.h.Namespace, o.Metric.Name, o.DescribedObject, everything(o.Metric.Selector, of), r.GroupResource().String())
	if err != nil {
		return fail(err)
	}
	a, value, err := shared(t, o.Target, used, "object")
	if err != nil {
		return fail(err)
	}
	p.replicas = a.replicas
	p.status = autoscalingv2.MetricStatus{Type: m.Type, Object: &autoscalingv2.ObjectMetricStatus{Metric: o.Metric, DescribedObject: o.DescribedObject, Current: value}}
	return p
}

func (l *loop) external(ctx context.Context, t *target, m *autoscalingv2.MetricSpec) proposal {
	e := m.External
	p := proposal{reason: "FailedGetExternalMetric", name: fmt.Sprintf("external metric %s(%+v)", e.Metric.Name, e.Metric.Selector)}
	fail := func(err error) proposal {
		p.err = fmt.Errorf("failed to get %s external metric value: %w", e.Metric.Name, err)
		return p
	}
	of, err := metav1.LabelSelectorAsSelector(e.Metric.Selector)
	if err != nil {
		return fail(err)
	}
	used, err := l.meter.outside(ctx, t.h.Namespace, e.Metric.Name, everything(e.Metric.Selector, of))
	if err != nil {
		return fail(err)
	}
	a, value, err := shared(t, e.Target, used, "external")
	if err != nil {
		return fail(err)
	}
	p.replicas = a.replicas
	p.status = autoscalingv2.MetricStatus{Type: m.Type, External: &autoscalingv2.ExternalMetricStatus{Metric: e.Metric, Current: value}}
	return p
}

// shared compares one value with a target, as it is or shared out among pods.
func shared(t *target, want autoscalingv2.MetricTarget, used int64, source string) (answer, autoscalingv2.MetricValueStatus, error) {
	switch {
	case want.AverageValue != nil:
		a := perPod(used, want.AverageValue.MilliValue(), t.status, toleranceOf(t.h))
		return a, autoscalingv2.MetricValueStatus{AverageValue: milli(a.value, "")}, nil
	case want.Value != nil:
		a, err := byRatio(t.pods, used, want.Value.MilliValue(), t.current, toleranceOf(t.h))
		return a, autoscalingv2.MetricValueStatus{Value: milli(a.value, "")}, err
	}
	return answer{}, autoscalingv2.MetricValueStatus{}, fmt.Errorf("invalid %s metric source: neither a value target nor an average value target was set", source)
}

// Package horizontalpodautoscaler defines the HorizontalPodAutoscaler kind.
//
// Job: defaults, rules and columns of autoscaling/v2 HorizontalPodAutoscaler,
// and autoscaling/v1, which says all but a CPU target in annotations.
//
// Not its job: scaling.
//
// Invariants: what v1 cannot say survives a round trip through it.
package horizontalpodautoscaler

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

type hpa = autoscalingv2.HorizontalPodAutoscaler

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[hpa]{
		Group: autoscalingv2.GroupName, Version: "v2", Kind: "HorizontalPodAutoscaler", Plural: "horizontalpodautoscalers",
		Short: []string{"hpa"}, Categories: []string{"all"},
		Default: setDefaults, Validate: validate,
		Prepare: func(_ *resource.Request, next, prev *hpa) {
			next.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
			if prev != nil {
				next.Status = prev.Status
			}
		},
		Subs: []resource.Sub[hpa]{
			resource.StatusSub(func(next, prev *hpa) { next.Spec = prev.Spec }, validateStatus),
		},
		Columns:       columns(),
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also: []resource.Version{{
			Group: autoscalingv1.GroupName, Version: "v1",
			New:   func() api.Object { return new(autoscalingv1.HorizontalPodAutoscaler) },
			Store: func(src api.Object) (api.Object, error) { return fromV1(src.(*autoscalingv1.HorizontalPodAutoscaler)) },
			Show:  func(src api.Object) (api.Object, error) { return toV1(src.(*hpa)) },
		}},
	})
}

func setDefaults(h *hpa) {
	if h.Spec.MinReplicas == nil {
		h.Spec.MinReplicas = new(int32(1))
	}
	if len(h.Spec.Metrics) == 0 {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(80))},
			},
		}}
	}
	b := h.Spec.Behavior
	if b == nil {
		return
	}
	percent := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}
	pods := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}
	setRules(&b.ScaleUp, new(int32(0)), pods, percent)
	setRules(&b.ScaleDown, nil, percent)
}

// setRules fills in the rules of one direction.
func setRules(rules **autoscalingv2.HPAScalingRules, window *int32, policies ...autoscalingv2.HPAScalingPolicy) {
	if *rules == nil {
		*rules = &autoscalingv2.HPAScalingRules{}
	}
	r := *rules
	if r.SelectPolicy == nil {
		r.SelectPolicy = new(autoscalingv2.MaxChangePolicySelect)
	}
	if r.StabilizationWindowSeconds == nil {
		r.StabilizationWindowSeconds = window
	}
	if r.Policies == nil {
		r.Policies = policies
	}
}

func columns() []resource.Column[hpa] {
	spec := func(name string) string { return resource.Doc(autoscalingv2.HorizontalPodAutoscalerSpec{}, name) }
	return []resource.Column[hpa]{
		resource.NameColumn[hpa](),
		{Name: "Reference", Description: spec("scaleTargetRef"), Cell: func(h *hpa, _ time.Time) any {
			return h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name
		}},
		{Name: "Targets", Description: spec("metrics"), Cell: func(h *hpa, _ time.Time) any { return targets(h) }},
		{Name: "MinPods", Description: spec("minReplicas"), Cell: func(h *hpa, _ time.Time) any {
			if h.Spec.MinReplicas == nil {
				return "<unset>"
			}
			return strconv.Itoa(int(*h.Spec.MinReplicas))
		}},
		{Name: "MaxPods", Description: spec("maxReplicas"), Cell: func(h *hpa, _ time.Time) any { return int64(h.Spec.MaxReplicas) }},
		{Name: "Replicas", Description: resource.Doc(autoscalingv2.HorizontalPodAutoscalerStatus{}, "currentReplicas"), Cell: func(h *hpa, _ time.Time) any {
			return int64(h.Status.CurrentReplicas)
		}},
		resource.AgeColumn[hpa](),
	}
}

// targets words the first two metrics and counts the others.
func targets(h *hpa) string {
	const shown = 2
	if len(h.Spec.Metrics) == 0 {
		return "<none>"
	}
	var list []string
	for i := range h.Spec.Metrics[:min(len(h.Spec.Metrics), shown)] {
		var status autoscalingv2.MetricStatus
		if i < len(h.Status.CurrentMetrics) {
			status = h.Status.CurrentMetrics[i]
		}
		list = append(list, target(&h.Spec.Metrics[i], &status))
	}
	text := strings.Join(list, ", ")
	if n := len(h.Spec.Metrics) - shown; n > 0 {
		text += fmt.Sprintf(" + %d more...", n)
	}
	return text
}

func target(m *autoscalingv2.MetricSpec, s *autoscalingv2.MetricStatus) string {
	switch {
	case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
		var now *autoscalingv2.MetricValueStatus
		if s.External != nil {
			now = &s.External.Current
		}
		return value(&m.External.Target, now)
	case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
		var now *autoscalingv2.MetricValueStatus
		if s.Pods != nil {
			now = &s.Pods.Current
		}
		return strings.TrimSuffix(value(&m.Pods.Target, now), " (avg)")
	case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
		var now *autoscalingv2.MetricValueStatus
		if s.Object != nil {
			now = &s.Object.Current
		}
		return value(&m.Object.Target, now)
	case m.Type == autoscalingv2.ResourceMetricSourceType && m.Resource != nil:
		var now *autoscalingv2.MetricValueStatus
		if s.Resource != nil {
			now = &s.Resource.Current
		}
		return fmt.Sprintf("%s: %s", m.Resource.Name, utilization(&m.Resource.Target, now))
	case m.Type == autoscalingv2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		var now *autoscalingv2.MetricValueStatus
		if s.ContainerResource != nil {
			now = &s.ContainerResource.Current
		}
		return fmt.Sprintf("%s: %s", m.ContainerResource.Name, utilization(&m.ContainerResource.Target, now))
	}
	return "<unknown type>"
}

// value words what is and what should be, of a plain amount.
func value(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	current := "<unknown>"
	if t.AverageValue != nil {
		if now != nil && now.AverageValue != nil {
			current = now.AverageValue.String()
		}
		return current + "/" + t.AverageValue.String() + " (avg)"
	}
	if now != nil && now.Value != nil {
		current = now.Value.String()
	}
	if t.Value == nil {
		return current + "/<auto>"
	}
	return current + "/" + t.Value.String()
}

// utilization does so of a resource.
func utilization(t *autoscalingv2.MetricTarget, now *autoscalingv2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return strings.TrimSuffix(value(t, now), " (avg)")
	}
	current, wanted := "<unknown>", "<auto>"
	if now != nil && now.AverageUtilization != nil {
		current = fmt.Sprintf("%d%%", *now.AverageUtilization)
	}
	if t.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *t.AverageUtilization)
	}
	return current + "/" + wanted
}

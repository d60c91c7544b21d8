package horizontalpodautoscaler

import (
	"encoding/json"
	"fmt"
	"maps"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// What v1 has no fields for it says in annotations.
const (
	metricsAnnotation    = "autoscaling.alpha.kubernetes.io/metrics"
	statusesAnnotation   = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation   = "autoscaling.alpha.kubernetes.io/behavior"
)

// fromV1 stores an autoscaler of v1. Annotations that cannot be read are left
// out, as they always were.
func fromV1(from *autoscalingv1.HorizontalPodAutoscaler) (*hpa, error) {
	to := &hpa{ObjectMeta: from.ObjectMeta}
	to.SetGroupVersionKind(autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"))
	to.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference(from.Spec.ScaleTargetRef)
	to.Spec.MinReplicas, to.Spec.MaxReplicas = from.Spec.MinReplicas, from.Spec.MaxReplicas
	if cpu := from.Spec.TargetCPUUtilizationPercentage; cpu != nil {
		to.Spec.Metrics = append(to.Spec.Metrics, autoscalingv2.MetricSpec{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.UtilizationMetricType, AverageUtilization: cpu,
			}},
		})
	}
	s := &from.Status
	to.Status.ObservedGeneration, to.Status.LastScaleTime = s.ObservedGeneration, s.LastScaleTime
	to.Status.CurrentReplicas, to.Status.DesiredReplicas = s.CurrentReplicas, s.DesiredReplicas
	if cpu := s.CurrentCPUUtilizationPercentage; cpu != nil {
		to.Status.CurrentMetrics = append(to.Status.CurrentMetrics, autoscalingv2.MetricStatus{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: cpu},
			},
		})
	}
	readAnnotations(to)
	return to, nil
}

// readAnnotations moves what annotations say to where it belongs.
func readAnnotations(to *hpa) {
	var specs []autoscalingv1.MetricSpec
	if read(to.Annotations, metricsAnnotation, &specs) {
		for i := range specs {
			to.Spec.Metrics = append(to.Spec.Metrics, metricFromV1(&specs[i]))
		}
	}
	var statuses []autoscalingv1.MetricStatus
	if read(to.Annotations, statusesAnnotation, &statuses) {
		// They hold all of the status, with more detail than the field had.
		to.Status.CurrentMetrics = nil
		for i := range statuses {
			to.Status.CurrentMetrics = append(to.Status.CurrentMetrics, statusFromV1(&statuses[i]))
		}
	}
	var conditions []autoscalingv1.HorizontalPodAutoscalerCondition
	if read(to.Annotations, conditionsAnnotation, &conditions) {
		for _, c := range conditions {
			to.Status.Conditions = append(to.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
				Type: autoscalingv2.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status,
				LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
			})
		}
	}
	behavior := &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	if read(to.Annotations, behaviorAnnotation, behavior) {
		to.Spec.Behavior = behavior
	}
	to.Annotations = maps.Clone(to.Annotations)
	for _, name := range []string{metricsAnnotation, statusesAnnotation, conditionsAnnotation, behaviorAnnotation} {
		delete(to.Annotations, name)
	}
	if len(to.Annotations) == 0 {
		to.Annotations = nil
	}
}

func read(annotations map[string]string, name string, into any) bool {
	text, ok := annotations[name]
	return ok && json.Unmarshal([]byte(text), into) == nil
}

// toV1 shows a stored autoscaler as v1: the CPU target in its field, all other
// metrics in annotations.
func toV1(from *hpa) (*autoscalingv1.HorizontalPodAutoscaler, error) {
	to := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: from.ObjectMeta}
	to.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"))
	to.Spec.ScaleTargetRef = autoscalingv1.CrossVersionObjectReference(from.Spec.ScaleTargetRef)
	to.Spec.MinReplicas, to.Spec.MaxReplicas = from.Spec.MinReplicas, from.Spec.MaxReplicas
	s := &from.Status
	to.Status.ObservedGeneration, to.Status.LastScaleTime = s.ObservedGeneration, s.LastScaleTime
	to.Status.CurrentReplicas, to.Status.DesiredReplicas = s.CurrentReplicas, s.DesiredReplicas

	var specs []autoscalingv1.MetricSpec
	for i := range from.Spec.Metrics {
		m := &from.Spec.Metrics[i]
		if m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil && to.Spec.TargetCPUUtilizationPercentage == nil {
			to.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
			continue
		}
		specs = append(specs, metricToV1(m))
	}
	var statuses []autoscalingv1.MetricStatus
	for i := range s.CurrentMetrics {
		m := &s.CurrentMetrics[i]
		if m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Current.AverageUtilization != nil {
			to.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		}
		statuses = append(statuses, statusToV1(m))
	}
	if c := s.CurrentMetrics; len(c) == 1 && to.Status.CurrentCPUUtilizationPercentage != nil && c[0].Resource.Current.AverageValue == nil {
		statuses = nil // the field says it all
	}
	var conditions []autoscalingv1.HorizontalPodAutoscalerCondition
	for _, c := range s.Conditions {
		conditions = append(conditions, autoscalingv1.HorizontalPodAutoscalerCondition{
			Type: autoscalingv1.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	return to, write(to, specs, statuses, conditions, from.Spec.Behavior)
}

func write(to *autoscalingv1.HorizontalPodAutoscaler, specs []autoscalingv1.MetricSpec, statuses []autoscalingv1.MetricStatus,
	conditions []autoscalingv1.HorizontalPodAutoscalerCondition, behavior *autoscalingv2.HorizontalPodAutoscalerBehavior,
) error {
	for _, a := range []struct {
		name  string
		value any
		any   bool
	}{
		{metricsAnnotation, specs, len(specs) > 0},
		{statusesAnnotation, statuses, len(statuses) > 0},
		{conditionsAnnotation, conditions, len(conditions) > 0},
		{behaviorAnnotation, behavior, behavior != nil},
	} {
		if !a.any {
			continue
		}
		text, err := json.Marshal(a.value)
		if err != nil {
			return fmt.Errorf("convert: %s: %w", a.name, err)
		}
		to.Annotations = maps.Clone(to.Annotations)
		if to.Annotations == nil {
			to.Annotations = map[string]string{}
		}
		to.Annotations[a.name] = string(text)
	}
	return nil
}

package horizontalpodautoscaler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	quantity "k8s.io/apimachinery/pkg/api/resource"
)

func good(change func(*autoscalingv2.HorizontalPodAutoscalerSpec)) *hpa {
	h := &hpa{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		MaxReplicas: 5, ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "d", APIVersion: "apps/v1"},
	}}
	h.Name = "h"
	change(&h.Spec)
	Kind().Default(h)
	return h
}

func TestDefaults(t *testing.T) {
	h := good(func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
		s.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
	})
	up, down := h.Spec.Behavior.ScaleUp, h.Spec.Behavior.ScaleDown
	if *h.Spec.MinReplicas != 1 || *h.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 ||
		*up.StabilizationWindowSeconds != 0 || len(up.Policies) != 2 || down.StabilizationWindowSeconds != nil || len(down.Policies) != 1 {
		t.Errorf("got %+v", h.Spec)
	}
}

func TestRules(t *testing.T) {
	type spec = autoscalingv2.HorizontalPodAutoscalerSpec
	for want, change := range map[string]func(*spec){
		"": func(*spec) {},
		"spec.maxReplicas: Invalid value: 0: must be greater than 0":                           func(s *spec) { s.MaxReplicas = 0 },
		"spec.minReplicas: Invalid value: 0: must be greater than or equal to 1":               func(s *spec) { s.MinReplicas = new(int32(0)) },
		"spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`":   func(s *spec) { s.MinReplicas = new(int32(6)) },
		"spec.scaleTargetRef.name: Required value":                                             func(s *spec) { s.ScaleTargetRef.Name = "" },
		"spec.metrics[0].pods: Required value: must populate information for the given metric": func(s *spec) { s.Metrics = []autoscalingv2.MetricSpec{{Type: "Pods"}} },
		"spec.behavior.scaleUp.policies: Required value: must specify at least one Policy": func(s *spec) {
			s.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{}}}
		},
	} {
		err := Kind().Validate(good(change), nil).ToAggregate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// What v1 has no fields for must come back from its annotations.
func TestThroughV1AndBack(t *testing.T) {
	v1 := Kind().Info().Also[0]
	h := good(func(s *autoscalingv2.HorizontalPodAutoscalerSpec) {
		s.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
		cpu := autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: new(int32(50))}
		mean := autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: new(quantity.MustParse("10"))}
		s.Metrics = []autoscalingv2.MetricSpec{
			{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: cpu}},
			{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "qps"}, Target: mean}},
			{Type: "External", External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "q"}, Target: mean}},
			{Type: "ContainerResource", ContainerResource: &autoscalingv2.ContainerResourceMetricSource{Name: "memory", Container: "c", Target: cpu}},
		}
	})
	h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "AbleToScale", Status: "True"}}
	h.SetGroupVersionKind(autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"))
	shown, err := v1.Show(h)
	if err != nil {
		t.Fatal(err)
	}
	old := shown.(*autoscalingv1.HorizontalPodAutoscaler)
	if *old.Spec.TargetCPUUtilizationPercentage != 50 || len(old.Annotations) != 3 {
		t.Errorf("shown as %+v", old)
	}
	back, err := v1.Store(old)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(back, h) {
		t.Errorf("got %+v, want %+v", back, h)
	}
}

func TestColumns(t *testing.T) {
	h := good(func(*autoscalingv2.HorizontalPodAutoscalerSpec) {})
	if got := strings.Trim(fmt.Sprint(Kind().Cells(h, time.Unix(0, 0))), "[]"); got != "h Deployment/d cpu: <unknown>/80% 1 5 0 <unknown>" {
		t.Errorf("got %q", got)
	}
}

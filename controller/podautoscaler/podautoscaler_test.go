package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
)

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func running(name string, ready bool) *corev1.Pod {
	status := corev1.ConditionTrue
	if !ready {
		status = corev1.ConditionFalse
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: ptr.To(metav1.NewTime(epoch.Add(-time.Hour))),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(epoch.Add(-time.Hour))}}}}
}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		pods    string // r ready, u unready, p pending, one each
		usage   []int64
		current int32
		want    int32
	}{
		"as wished":            {"rrr", []int64{500, 500, 500}, 3, 3},
		"within tolerance":     {"rrr", []int64{540, 540, 540}, 3, 3},
		"twice":                {"rrr", []int64{1000, 1000, 1000}, 3, 6},
		"half":                 {"rrrr", []int64{250, 250, 250, 250}, 4, 2},
		"pending ones hold up": {"rrrp", []int64{1000, 1000, 1000, -1}, 4, 6},
		"unready ones too":     {"ruu", []int64{2000, 2000, 2000}, 3, 4},
		"missing hold down":    {"rrrr", []int64{100, 100, -1, -1}, 4, 4},
		"missing hold up":      {"rrrr", []int64{700, 700, -1, -1}, 4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var pods []*corev1.Pod
			samples := map[string]sample{}
			for i, r := range c.pods {
				p := running(fmt.Sprint("p", i), r == 'r')
				if r == 'p' {
					p.Status.Phase = corev1.PodPending
				}
				pods = append(pods, p)
				if c.usage[i] >= 0 {
					samples[p.Name] = sample{value: c.usage[i], at: epoch, window: time.Minute}
				}
			}
			asked, err := requests(pods, "", "cpu")
			if err != nil {
				t.Fatal(err)
			}
			a, err := decide(pods, samples, goal{percent: 50, requests: asked}, c.current, tolerance{usualTolerance, usualTolerance}, true, epoch)
			if err != nil || a.replicas != c.want {
				t.Errorf("%+v, %v; want %d", a, err, c.want)
			}
		})
	}
}

func TestOtherValues(t *testing.T) {
	tol := tolerance{usualTolerance, usualTolerance}
	pods := []*corev1.Pod{running("a", true), running("b", true), running("c", false)}
	if a, err := byRatio(pods, 3000, 1000, 3, tol); err != nil || a.replicas != 6 {
		t.Errorf("%+v %v", a, err)
	}
	if a, _ := byRatio(nil, 3000, 1000, 0, tol); a.replicas != 3 {
		t.Errorf("from zero: %+v", a)
	}
	if a := perPod(9000, 1000, 3, tol); a.replicas != 9 || a.value != 3000 {
		t.Errorf("%+v", a)
	}
	if bounded(math.MaxFloat64) != math.MaxInt32 {
		t.Error("not bounded")
	}
}

func rules(window int32, choice autoscalingv2.ScalingPolicySelect, p ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	return &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window, SelectPolicy: &choice, Policies: p}
}

func TestLimits(t *testing.T) {
	pods := func(n, seconds int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: n, PeriodSeconds: seconds}
	}
	percent := func(n, seconds int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: n, PeriodSeconds: seconds}
	}
	both := func(up, down *autoscalingv2.HPAScalingRules) *autoscalingv2.HorizontalPodAutoscalerBehavior {
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: up, ScaleDown: down}
	}
	most, least, none := autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect
	usual := both(rules(0, most, percent(100, 15), pods(4, 15)), rules(300, most, percent(100, 15)))
	for name, c := range map[string]struct {
		b               *autoscalingv2.HorizontalPodAutoscalerBehavior
		m               memory
		current, wanted int32
		want            int32
		reason          string
	}{
		"plain":           {nil, memory{}, 3, 5, 5, "DesiredWithinRange"},
		"doubles":         {nil, memory{}, 3, 9, 6, "ScaleUpLimit"},
		"to four":         {nil, memory{}, 1, 9, 4, "ScaleUpLimit"},
		"bound":           {nil, memory{}, 15, 29, 20, "TooManyReplicas"},
		"floor":           {nil, memory{}, 5, 1, 2, "TooFewReplicas"},
		"four or double":  {usual, memory{}, 3, 20, 7, "ScaleUpLimit"},
		"already grown":   {usual, memory{up: []step{{epoch.Add(-5 * time.Second), 4}}}, 7, 20, 7, "ScaleUpLimit"},
		"long ago":        {usual, memory{up: []step{{epoch.Add(-20 * time.Second), 4}}}, 7, 20, 14, "ScaleUpLimit"},
		"never down":      {both(rules(0, most, pods(4, 15)), rules(0, none)), memory{}, 7, 3, 7, "ScaleDownLimit"},
		"slowly down":     {both(rules(0, most, pods(4, 15)), rules(0, least, percent(50, 15), pods(1, 15))), memory{}, 10, 3, 9, "ScaleDownLimit"},
		"down to the end": {usual, memory{}, 10, 0, 2, "TooFewReplicas"},
	} {
		got, v := c.m.limit(epoch, c.b, c.current, c.wanted, 2, 20)
		if got != c.want || v.reason != c.reason {
			t.Errorf("%s: %d %s, want %d %s", name, got, v.reason, c.want, c.reason)
		}
	}
}

func TestStabilize(t *testing.T) {
	m := memory{wishes: []wish{{epoch.Add(-4 * time.Minute), 9}, {epoch.Add(-6 * time.Minute), 12}}}
	if n, v := m.stabilize(epoch, nil, 10, 3); n != 9 || v.reason != "ScaleDownStabilized" {
		t.Errorf("%d %v", n, v)
	}
	b := &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(60, autoscalingv2.MaxChangePolicySelect), ScaleDown: rules(0, autoscalingv2.MaxChangePolicySelect)}
	m = memory{wishes: []wish{{epoch.Add(-30 * time.Second), 5}}}
	if n, v := m.stabilize(epoch, b, 4, 9); n != 5 || v.reason != "ScaleUpStabilized" {
		t.Errorf("%d %v", n, v)
	}
}

// scaled is a server with a scale subresource and, perhaps, metrics.
type scaled struct {
	*fake.Server
	mu    sync.Mutex
	scale *autoscalingv1.Scale
	usage string // of each pod; "" serves no metrics
}

func (s *scaled) use(usage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usage = usage
}

func (s *scaled) size() int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scale.Spec.Replicas
}

func (s *scaled) Get(ctx context.Context, r schema.GroupVersionResource, ns, name, sub string, o *metav1.GetOptions) (api.Object, error) {
	if sub == "scale" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.scale.DeepCopy(), nil
	}
	return s.Server.Get(ctx, r, ns, name, sub, o)
}

func (s *scaled) Update(ctx context.Context, r schema.GroupVersionResource, ns, sub string, obj api.Object, o *metav1.UpdateOptions) (api.Object, error) {
	if sub == "scale" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.scale = obj.DeepCopyObject().(*autoscalingv1.Scale)
		s.scale.Status.Replicas = s.scale.Spec.Replicas
		return s.scale, nil
	}
	return s.Server.Update(ctx, r, ns, sub, obj, o)
}

func (s *scaled) Raw(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	if !strings.HasPrefix(path, resourceMetrics) {
		return s.Server.Raw(ctx, method, path, body)
	}
	s.mu.Lock()
	usage := s.usage
	s.mu.Unlock()
	if usage == "" || path != resourceMetrics+"/namespaces/a/pods?labelSelector=app%3Dweb" {
		return nil, errors.New("the server could not find the requested resource (get pods.metrics.k8s.io)")
	}
	var items []string
	pods, _ := client.Of[corev1.Pod](s.Server, "a").List(ctx, nil)
	for _, p := range pods {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":%q},"timestamp":%q,"window":"30s","containers":[{"name":"c","usage":{"cpu":%q}}]}`, p.Name, time.Now().Format(time.RFC3339), usage))
	}
	return []byte(`{"items":[` + strings.Join(items, ",") + `]}`), nil
}

func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &autoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "a"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: ptr.To[int32](1), MaxReplicas: 10,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu",
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)}}}}}}
		s := &scaled{Server: fake.New(h, running("p0", true), running("p1", true)),
			scale: &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"}, Spec: autoscalingv1.ScaleSpec{Replicas: 2}, Status: autoscalingv1.ScaleStatus{Replicas: 2, Selector: "app=web"}}}
		s.Serve([]schema.GroupVersionResource{client.Resource[appsv1.Deployment](), client.Resource[corev1.Pod]()})
		d := controller.WithClient(s)
		g := run.New(t.Context())
		g.Go("mirrors", d.Mirrors.Run)
		g.Go("loop", New(d).Run)
		defer func() { g.Stop(); g.Wait() }()
		check := func(replicas int32, conditions string) {
			t.Helper()
			synctest.Wait()
			now, err := client.Of[autoscaler](s, "a").Get(t.Context(), "h")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range now.Status.Conditions {
				got = append(got, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
			}
			if s.size() != replicas || strings.Join(got, ", ") != conditions {
				t.Errorf("scale %d, want %d; conditions\ngot  %s\nwant %s", s.size(), replicas, strings.Join(got, ", "), conditions)
			}
		}
		time.Sleep(time.Second)
		check(2, "AbleToScale=True SucceededGetScale, ScalingActive=False FailedGetResourceMetric")
		now, _ := client.Of[autoscaler](s, "a").Get(t.Context(), "h")
		if len(now.Status.Conditions) < 2 {
			t.Fatal(now.Status)
		}
		if m := now.Status.Conditions[1].Message; m != "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)" {
			t.Error(m)
		}
		s.use("900m")
		time.Sleep(15 * time.Second)
		check(4, "AbleToScale=True SucceededRescale, ScalingActive=True ValidMetricFound, ScalingLimited=False DesiredWithinRange")
		s.use("100m")
		time.Sleep(15 * time.Second)
		check(4, "AbleToScale=True ScaleDownStabilized, ScalingActive=True ValidMetricFound, ScalingLimited=False DesiredWithinRange")
		time.Sleep(6 * time.Minute)
		check(1, "AbleToScale=True ReadyForNewScale, ScalingActive=True ValidMetricFound, ScalingLimited=False DesiredWithinRange")
	})
}

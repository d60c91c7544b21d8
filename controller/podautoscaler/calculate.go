package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/semantics/pod"
)

// Upstream's defaults.
const (
	usualTolerance = 0.1
	cpuStart       = 5 * time.Minute  // a pod's first use of the processor says little
	readyDelay     = 30 * time.Second // a pod never ready since then is only starting
)

// sample is one pod's value, in thousandths.
type sample struct {
	value  int64
	at     time.Time
	window time.Duration
}

type tolerance struct{ up, down float64 }

func toleranceOf(h *autoscalingv2.HorizontalPodAutoscaler) tolerance {
	t := tolerance{usualTolerance, usualTolerance}
	if b := h.Spec.Behavior; b != nil {
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

func (t tolerance) covers(ratio float64) bool { return ratio >= 1-t.down && ratio <= 1+t.up }

// groups are pods by what their samples are worth.
type groups struct {
	ready            int
	unready, missing []string
}

// group sorts pods and drops the samples that say nothing.
func group(pods []*corev1.Pod, samples map[string]sample, cpu bool, now time.Time) groups {
	var g groups
	for _, p := range pods {
		s, measured := samples[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			delete(samples, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, p.Name)
			delete(samples, p.Name)
		case !measured:
			g.missing = append(g.missing, p.Name)
		case cpu && starting(p, s, now):
			g.unready = append(g.unready, p.Name)
			delete(samples, p.Name)
		default:
			g.ready++
		}
	}
	return g
}

func starting(p *corev1.Pod, s sample, now time.Time) bool {
	c := pod.Condition(&p.Status, corev1.PodReady)
	if c == nil || p.Status.StartTime == nil {
		return true
	}
	if p.Status.StartTime.Add(cpuStart).After(now) {
		return c.Status == corev1.ConditionFalse || s.at.Before(c.LastTransitionTime.Add(s.window))
	}
	return c.Status == corev1.ConditionFalse && p.Status.StartTime.Add(readyDelay).After(c.LastTransitionTime.Time)
}

// goal is what samples are compared with.
type goal struct {
	average  int64            // wanted per pod, in thousandths; or
	percent  int32            // wanted of what was asked for,
	requests map[string]int64 // by pod
}

// ratio compares samples with the goal: use by wish, the use per pod, and the
// percentage of what was asked for.
func (g goal) ratio(samples map[string]sample) (ratio float64, average int64, percent int32, err error) {
	var used, asked int64
	for name, s := range samples {
		if g.requests != nil {
			want, ok := g.requests[name]
			if !ok {
				continue // the pod has gone
			}
			asked += want
		}
		used += s.value
	}
	average = used / int64(max(len(samples), 1))
	if g.requests == nil {
		return float64(average) / float64(g.average), average, 0, nil
	}
	if asked == 0 {
		return 0, 0, 0, errors.New("no metrics returned matched known pods")
	}
	percent = int32(used * 100 / asked)
	return float64(percent) / float64(g.percent), average, percent, nil
}

// answer is what a metric says.
type answer struct {
	replicas int32
	value    int64 // now
	percent  int32
}

// decide says how many pods the samples ask for. Pods that were not measured
// count as what hinders scaling most.
func decide(pods []*corev1.Pod, samples map[string]sample, g goal, current int32, t tolerance, cpu bool, now time.Time) (answer, error) {
	if len(pods) == 0 {
		return answer{}, errors.New("no pods returned by selector while calculating replica count")
	}
	gr := group(pods, samples, cpu, now)
	if len(samples) == 0 {
		return answer{}, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	ratio, average, percent, err := g.ratio(samples)
	if err != nil {
		return answer{}, err
	}
	a := answer{replicas: current, value: average, percent: percent}
	upwards := len(gr.unready) > 0 && ratio > 1
	if !upwards && len(gr.missing) == 0 {
		if !t.covers(ratio) {
			a.replicas = int32(math.Ceil(ratio * float64(gr.ready)))
		}
		return a, nil
	}
	for _, name := range gr.missing {
		switch {
		case ratio < 1 && g.requests != nil:
			samples[name] = sample{value: g.requests[name] * int64(max(100, g.percent)) / 100}
		case ratio < 1:
			samples[name] = sample{value: g.average}
		case ratio > 1:
			samples[name] = sample{}
		}
	}
	if upwards {
		for _, name := range gr.unready {
			samples[name] = sample{}
		}
	}
	again, _, _, err := g.ratio(samples)
	if err != nil {
		return answer{}, err
	}
	if t.covers(again) || ratio < 1 && again > 1 || ratio > 1 && again < 1 {
		return a, nil
	}
	n := int32(math.Ceil(again * float64(len(samples))))
	if again < 1 && n > current || again > 1 && n < current {
		return a, nil
	}
	a.replicas = n
	return a, nil
}

// byRatio is for values that are not of pods: the ready pods times the ratio.
func byRatio(pods []*corev1.Pod, used, wanted int64, current int32, t tolerance) (answer, error) {
	ratio := float64(used) / float64(wanted)
	a := answer{replicas: current, value: used}
	if current == 0 {
		a.replicas = bounded(ratio)
		return a, nil
	}
	if t.covers(ratio) {
		return a, nil
	}
	if len(pods) == 0 {
		return a, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
	}
	ready := 0
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning && pod.Ready(p) {
			ready++
		}
	}
	a.replicas = bounded(ratio * float64(ready))
	return a, nil
}

// perPod is for values that are shared out among pods.
func perPod(used, wanted int64, replicas int32, t tolerance) answer {
	a := answer{replicas: replicas, value: int64(math.Ceil(float64(used) / float64(max(replicas, 1))))}
	if ratio := float64(used) / (float64(wanted) * float64(replicas)); !t.covers(ratio) {
		a.replicas = bounded(float64(used) / float64(wanted))
	}
	return a
}

func bounded(f float64) int32 {
	if f > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(math.Ceil(f))
}

// requests are what pods ask for of a resource, or one container of theirs, in thousandths.
func requests(pods []*corev1.Pod, container string, name corev1.ResourceName) (map[string]int64, error) {
	out := map[string]int64{}
	for _, p := range pods {
		if p.Spec.Resources != nil && len(p.Spec.Resources.Requests) > 0 && container == "" {
			q, ok := p.Spec.Resources.Requests[name]
			if !ok {
				return nil, fmt.Errorf("missing pod-level request for %s in Pod %s", name, p.Name)
			}
			out[p.Name] = q.MilliValue()
			continue
		}
		list := append([]corev1.Container(nil), p.Spec.Containers...)
		for i := range p.Spec.InitContainers {
			if pod.Sidecar(&p.Spec.InitContainers[i]) {
				list = append(list, p.Spec.InitContainers[i])
			}
		}
		found := false
		for i := range list {
			c := &list[i]
			if container != "" && c.Name != container {
				continue
			}
			found = true
			q, ok := c.Resources.Requests[name]
			if !ok {
				return nil, fmt.Errorf("missing request for %s in container %s of Pod %s", name, c.Name, p.Name)
			}
			out[p.Name] += q.MilliValue()
		}
		if container != "" && !found {
			return nil, fmt.Errorf("container %s not found in Pod %s", container, p.Name)
		}
	}
	return out, nil
}

package podautoscaler

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// downWindow is upstream's usual wait before there are fewer pods.
const downWindow = 5 * time.Minute

// Without a behavior the number at most doubles, or grows to four.
const (
	growFactor = 2
	growLeast  = 4
)

// wish is what the metrics asked for at some time.
type wish struct {
	at       time.Time
	replicas int32
}

// step is a change of size.
type step struct {
	at     time.Time
	change int32 // more pods, or fewer
}

// memory is what one autoscaler remembers.
type memory struct {
	wishes   []wish
	up, down []step
}

// verdict is a condition's content.
type verdict struct {
	limited         bool
	reason, message string
}

func (m *memory) first(now time.Time, current int32) {
	if m.wishes == nil {
		m.wishes = []wish{{now, current}}
	}
}

// forget drops what no window reaches.
func (m *memory) forget(now time.Time, b *autoscalingv2.HorizontalPodAutoscalerBehavior) {
	longest := downWindow
	period := time.Duration(0)
	if b != nil {
		for _, r := range []*autoscalingv2.HPAScalingRules{b.ScaleUp, b.ScaleDown} {
			if r == nil {
				continue
			}
			longest = max(longest, window(r))
			for _, p := range r.Policies {
				period = max(period, time.Duration(p.PeriodSeconds)*time.Second)
			}
		}
	}
	m.wishes = slices.DeleteFunc(m.wishes, func(w wish) bool { return now.Sub(w.at) > longest })
	old := func(s step) bool { return now.Sub(s.at) > period }
	m.up, m.down = slices.DeleteFunc(m.up, old), slices.DeleteFunc(m.down, old)
}

func window(r *autoscalingv2.HPAScalingRules) time.Duration {
	if r.StabilizationWindowSeconds == nil {
		return downWindow
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// scaled notes a change of size.
func (m *memory) scaled(now time.Time, from, to int32) {
	if to > from {
		m.up = append(m.up, step{now, to - from})
	} else {
		m.down = append(m.down, step{now, from - to})
	}
}

const (
	waitDown = "recent recommendations were higher than current one, applying the highest recent recommendation"
	waitUp   = "recent recommendations were lower than current one, applying the lowest recent recommendation"
)

// stabilize weighs a wish against recent ones.
func (m *memory) stabilize(now time.Time, b *autoscalingv2.HorizontalPodAutoscalerBehavior, current, wanted int32) (int32, verdict) {
	up, down := wanted, wanted
	for _, w := range m.wishes {
		age := now.Sub(w.at)
		if b != nil && age < window(b.ScaleUp) {
			up = min(up, w.replicas)
		}
		if b == nil && age <= downWindow || b != nil && age < window(b.ScaleDown) {
			down = max(down, w.replicas)
		}
	}
	m.wishes = append(m.wishes, wish{now, wanted})
	out := down
	if b != nil {
		out = min(max(current, up), down)
	}
	switch {
	case out == wanted:
		return out, verdict{reason: "ReadyForNewScale", message: "recommended size matches current size"}
	case b != nil && wanted >= current:
		return out, verdict{reason: "ScaleUpStabilized", message: waitUp}
	}
	return out, verdict{reason: "ScaleDownStabilized", message: waitDown}
}

// Why a wish was cut.
var (
	tooFast  = verdict{true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"}
	tooSoon  = verdict{true, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"}
	tooMany  = verdict{true, "TooManyReplicas", "the desired replica count is more than the maximum replica count"}
	tooFew   = verdict{true, "TooFewReplicas", "the desired replica count is less than the minimum replica count"}
	inBounds = verdict{false, "DesiredWithinRange", "the desired count is within the acceptable range"}
)

// limit cuts a wish to what bounds and rates allow.
func (m *memory) limit(now time.Time, b *autoscalingv2.HorizontalPodAutoscalerBehavior, current, wanted, least, most int32) (int32, verdict) {
	high, why := most, tooMany
	switch {
	case b == nil:
		if rate := max(growFactor*current, growLeast); most > rate {
			high, why = rate, tooFast
		}
		if wanted < least {
			return least, tooFew
		}
	case wanted > current:
		if rate := max(m.rate(now, b.ScaleUp, current, 1), current); most > rate {
			high, why = rate, tooFast
		}
	case wanted < current:
		low, why := least, tooFew
		if rate := min(m.rate(now, b.ScaleDown, current, -1), current); least < rate {
			low, why = rate, tooSoon
		}
		if wanted < low {
			return low, why
		}
	}
	if wanted > high {
		return high, why
	}
	return wanted, inBounds
}

// rate is the furthest size that the rules' policies allow, up (1) or down (-1).
func (m *memory) rate(now time.Time, r *autoscalingv2.HPAScalingRules, current, way int32) int32 {
	choice := autoscalingv2.MaxChangePolicySelect
	if r.SelectPolicy != nil {
		choice = *r.SelectPolicy
	}
	if choice == autoscalingv2.DisabledPolicySelect {
		return current
	}
	recent := func(steps []step, period time.Duration) (n int32) {
		for _, s := range steps {
			if now.Sub(s.at) < period {
				n += s.change
			}
		}
		return n
	}
	var all []int32
	for _, p := range r.Policies {
		period := time.Duration(p.PeriodSeconds) * time.Second
		began := current - recent(m.up, period) + recent(m.down, period)
		switch p.Type {
		case autoscalingv2.PodsScalingPolicy:
			all = append(all, began+way*p.Value)
		case autoscalingv2.PercentScalingPolicy:
			to := float64(began) * (1 + float64(way)*float64(p.Value)/100)
			if way > 0 {
				to = math.Ceil(to)
			}
			all = append(all, int32(to))
		}
	}
	switch {
	case len(all) == 0 && way > 0:
		return math.MaxInt32
	case len(all) == 0:
		return math.MinInt32
	case (choice == autoscalingv2.MinChangePolicySelect) == (way > 0):
		return slices.Min(all)
	}
	return slices.Max(all)
}

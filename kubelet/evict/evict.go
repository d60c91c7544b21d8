// Package evict judges when a node runs short, and which pod must give way.
//
// Job: thresholds as the user writes them, when one is met, the node conditions
// that follow, the order in which pods are evicted and what they are told.
//
// Not its job: measuring, ending pods, freeing images (kubelet).
//
// Invariants: pure but for State, which only remembers times; a hard threshold
// acts at once, a soft one after its grace; a condition stays for the
// transition period after its cause has gone.
package evict

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal names what may run short.
type Signal string

// The signals, as upstream names them.
const (
	Memory       Signal = "memory.available"
	NodeDisk     Signal = "nodefs.available"
	NodeInodes   Signal = "nodefs.inodesFree"
	ImageDisk    Signal = "imagefs.available"
	ImageInodes  Signal = "imagefs.inodesFree"
	ContainerFS  Signal = "containerfs.available"
	ContainerIno Signal = "containerfs.inodesFree"
	Pids         Signal = "pid.available"
	Allocatable  Signal = "allocatableMemory.available"
)

// order is in which signals are looked at: memory is the most urgent.
func order() []Signal {
	return []Signal{Memory, Allocatable, Pids, NodeDisk, ImageDisk, ContainerFS, NodeInodes, ImageInodes, ContainerIno}
}

// Condition is the node condition that a signal brings about.
func (s Signal) Condition() corev1.NodeConditionType {
	switch s {
	case Memory, Allocatable:
		return corev1.NodeMemoryPressure
	case Pids:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

// Resource is what pods are told was short.
func (s Signal) Resource() corev1.ResourceName {
	switch s {
	case Memory, Allocatable:
		return corev1.ResourceMemory
	case Pids:
		return "pids"
	case NodeInodes, ImageInodes, ContainerIno:
		return "inodes"
	}
	return corev1.ResourceEphemeralStorage
}

// Amount is a quantity, or a share of what there is.
type Amount struct {
	Value int64
	Share float64 // of the capacity, when Value is 0
}

func (a Amount) of(capacity int64) int64 {
	if a.Share > 0 {
		return int64(a.Share * float64(capacity))
	}
	return a.Value
}

// Threshold is what must stay free.
type Threshold struct {
	Signal     Signal
	Min        Amount
	Grace      time.Duration // 0 is a hard threshold
	Soft       bool
	MinReclaim Amount // how much beyond Min is freed at least
}

// Config is what the user may say of eviction.
type Config struct {
	Hard, Soft, SoftGrace, MinReclaim map[string]string
}

// Parse reads the thresholds.
func Parse(c Config) ([]Threshold, error) {
	var out []Threshold
	for _, soft := range []bool{false, true} {
		list := c.Hard
		if soft {
			list = c.Soft
		}
		for _, name := range slices.Sorted(maps.Keys(list)) {
			t := Threshold{Signal: Signal(name), Soft: soft}
			if !slices.Contains(order(), t.Signal) {
				return nil, fmt.Errorf("unsupported eviction signal %v", name)
			}
			var err error
			if t.Min, err = amount(list[name]); err != nil {
				return nil, fmt.Errorf("eviction threshold %v: %w", name, err)
			}
			if r, ok := c.MinReclaim[name]; ok {
				if t.MinReclaim, err = amount(r); err != nil {
					return nil, fmt.Errorf("invalid eviction minimum reclaim %v: %w", name, err)
				}
			}
			if soft {
				if t.Grace, err = time.ParseDuration(c.SoftGrace[name]); err != nil || t.Grace <= 0 {
					return nil, fmt.Errorf("grace period must be specified for the soft eviction threshold %v", name)
				}
			}
			if t.Min != (Amount{}) { // 0 or 0% turns a threshold off
				out = append(out, t)
			}
		}
	}
	return out, nil
}

func amount(s string) (Amount, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		f, err := strconv.ParseFloat(p, 64)
		if err != nil || f < 0 || f > 100 {
			return Amount{}, fmt.Errorf("eviction percentage threshold must be >= 0%% and <= 100%%, got %q", s)
		}
		if f == 100 {
			return Amount{}, nil // upstream takes this for "off", too
		}
		return Amount{Share: f / 100}, nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return Amount{}, err
	}
	if q.Sign() < 0 {
		return Amount{}, fmt.Errorf("must be positive: %s", s)
	}
	return Amount{Value: q.Value()}, nil
}

// Observation is how much there is of something.
type Observation struct{ Available, Capacity int64 }

// State remembers since when thresholds are met. The zero value is ready.
type State struct {
	since map[Threshold]time.Time
	seen  map[corev1.NodeConditionType]time.Time
}

// Met is a threshold that calls for action.
type Met struct {
	Threshold
	Quantity, Available int64
}

// Text tells of the threshold in an eviction's message.
func (m Met) Text() string {
	format := resource.BinarySI
	if r := m.Signal.Resource(); r == "inodes" || r == "pids" {
		format = resource.DecimalSI
	}
	return fmt.Sprintf("Threshold quantity: %v, available: %v. ", resource.NewQuantity(m.Quantity, format), resource.NewQuantity(m.Available, format))
}

// Step takes in what is observed now. It returns the conditions that the node
// has and the thresholds that call for action, the most urgent first.
func (s *State) Step(all []Threshold, obs map[Signal]Observation, now time.Time, transition time.Duration) (conditions []corev1.NodeConditionType, act []Met) {
	if s.since == nil {
		s.since, s.seen = map[Threshold]time.Time{}, map[corev1.NodeConditionType]time.Time{}
	}
	for _, t := range all {
		o, ok := obs[t.Signal]
		if !ok {
			continue
		}
		want := t.Min.of(o.Capacity)
		since, met := s.since[t]
		if met { // until enough beyond the threshold has been won
			want += t.MinReclaim.of(o.Capacity)
		}
		if o.Available >= want {
			delete(s.since, t)
			continue
		}
		if !met {
			since = now
			s.since[t] = now
		}
		s.seen[t.Signal.Condition()] = now
		if now.Sub(since) >= t.Grace {
			act = append(act, Met{t, t.Min.of(o.Capacity), o.Available})
		}
	}
	for c, at := range s.seen {
		if at.Equal(now) || now.Sub(at) < transition {
			conditions = append(conditions, c)
		} else {
			delete(s.seen, c)
		}
	}
	slices.Sort(conditions)
	rank := order()
	slices.SortStableFunc(act, func(a, b Met) int { return slices.Index(rank, a.Signal) - slices.Index(rank, b.Signal) })
	return conditions, act
}

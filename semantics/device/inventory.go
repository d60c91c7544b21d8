// Package device chooses devices for claims.
//
// Job: what of the published devices a node can reach, and which of those that
// are free serve what claims ask for.
//
// Not its job: evaluating selectors (semantics/expression), writing what was
// chosen (scheduler).
//
// Invariants: pure; what it is given is never changed; the same question has
// the same answer.
package device

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"
)

// ID names a device.
type ID struct{ Driver, Pool, Device string }

// PoolID names a pool.
type PoolID struct{ Driver, Pool string }

func (id ID) pool() PoolID { return PoolID{id.Driver, id.Pool} }

// String is upstream's spelling.
func (p PoolID) String() string { return p.Driver + "/" + p.Pool }

// Device is a device where it is published.
type Device struct {
	ID
	*devicev1.Device
	slice *devicev1.ResourceSlice
}

// pool is what a driver manages as one, of its latest generation.
type pool struct {
	id         PoolID
	slices     []*devicev1.ResourceSlice // by name
	incomplete bool                      // not all slices are there yet
	invalid    bool                      // two devices of one name
	counters   map[counter]resource.Quantity
}

type counter struct{ set, name string }

// Inventory is all that drivers publish. Make one with Take.
type Inventory struct{ pools []*pool }

// Take sorts slices into pools. Slices of a generation that was replaced do not count.
func Take(all []*devicev1.ResourceSlice) *Inventory {
	pools := map[PoolID]*pool{}
	for _, s := range all {
		id := PoolID{s.Spec.Driver, s.Spec.Pool.Name}
		p := pools[id]
		if p == nil {
			p = &pool{id: id}
			pools[id] = p
		}
		switch {
		case len(p.slices) == 0 || p.slices[0].Spec.Pool.Generation == s.Spec.Pool.Generation:
			p.slices = append(p.slices, s)
		case p.slices[0].Spec.Pool.Generation < s.Spec.Pool.Generation:
			p.slices = []*devicev1.ResourceSlice{s}
		}
	}
	inv := &Inventory{slices.Collect(maps.Values(pools))}
	for _, p := range inv.pools {
		p.finish()
	}
	// Pools that are whole come first.
	slices.SortFunc(inv.pools, func(a, b *pool) int {
		return cmp.Or(order(a.incomplete, b.incomplete), cmp.Compare(a.id.Driver, b.id.Driver), cmp.Compare(a.id.Pool, b.id.Pool))
	})
	return inv
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (p *pool) finish() {
	slices.SortFunc(p.slices, func(a, b *devicev1.ResourceSlice) int { return cmp.Compare(a.Name, b.Name) })
	p.incomplete = int64(len(p.slices)) != p.slices[0].Spec.Pool.ResourceSliceCount
	p.counters = map[counter]resource.Quantity{}
	seen := map[string]bool{}
	for _, s := range p.slices {
		for i := range s.Spec.Devices {
			p.invalid = p.invalid || seen[s.Spec.Devices[i].Name]
			seen[s.Spec.Devices[i].Name] = true
		}
		for _, set := range s.Spec.SharedCounters {
			for name, c := range set.Counters {
				p.counters[counter{set.Name, name}] = c.Value
			}
		}
	}
}

// reachable are the devices of a pool that a node can use.
func (p *pool) reachable(n *corev1.Node) ([]*Device, error) {
	var out []*Device
	for _, s := range p.slices {
		each := ptr.Deref(s.Spec.PerDeviceNodeSelection, false)
		if !each {
			ok, err := reaches(n, s.Spec.NodeName, s.Spec.AllNodes, s.Spec.NodeSelector)
			if err != nil {
				return nil, fmt.Errorf("failed to perform node selection for slice %s: %w", s.Name, err)
			}
			if !ok {
				continue
			}
		}
		for i := range s.Spec.Devices {
			d := &s.Spec.Devices[i]
			if each {
				ok, err := reaches(n, d.NodeName, d.AllNodes, d.NodeSelector)
				if err != nil {
					return nil, fmt.Errorf("failed to perform node selection for device %s in slice %s: %w", d.Name, s.Name, err)
				}
				if !ok {
					continue
				}
			}
			if len(d.BindingConditions) > 0 {
				continue // who takes it must wait for more than this scheduler knows
			}
			out = append(out, &Device{ID: ID{p.id.Driver, p.id.Pool, d.Name}, Device: d, slice: s})
		}
	}
	return out, nil
}

func reaches(n *corev1.Node, name *string, all *bool, selector *corev1.NodeSelector) (bool, error) {
	switch {
	case ptr.Deref(name, "") != "":
		return n.Name == *name, nil
	case ptr.Deref(all, false):
		return true, nil
	case selector != nil:
		s, err := nodeaffinity.NewNodeSelector(selector)
		if err != nil {
			return false, fmt.Errorf("failed to parse node selector %s: %w", selector.String(), err)
		}
		return s.Match(n), nil
	}
	return false, nil
}

// Tolerated says whether tolerations let a device with these taints be taken.
func Tolerated(taints []devicev1.DeviceTaint, tolerations []devicev1.DeviceToleration) bool {
	return !slices.ContainsFunc(taints, func(t devicev1.DeviceTaint) bool {
		if t.Effect != devicev1.DeviceTaintEffectNoSchedule && t.Effect != devicev1.DeviceTaintEffectNoExecute {
			return false
		}
		return !slices.ContainsFunc(tolerations, func(o devicev1.DeviceToleration) bool { return Covers(&o, &t) })
	})
}

// Covers says whether a toleration covers a taint.
func Covers(o *devicev1.DeviceToleration, t *devicev1.DeviceTaint) bool {
	if o.Effect != "" && o.Effect != t.Effect || o.Key != "" && o.Key != t.Key {
		return false
	}
	switch o.Operator {
	case "", devicev1.DeviceTolerationOpEqual:
		return o.Value == t.Value
	case devicev1.DeviceTolerationOpExists:
		return true
	}
	return false
}

// Ruled says whether an administrator's rule taints a device.
func Ruled(r *devicev1.DeviceTaintRule, id ID) bool {
	s := r.Spec.DeviceSelector
	if s == nil {
		return false
	}
	is := func(want *string, have string) bool { return want == nil || *want == have }
	return is(s.Driver, id.Driver) && is(s.Pool, id.Pool) && is(s.Device, id.Device)
}

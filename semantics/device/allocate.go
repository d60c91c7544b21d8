package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	devicev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// Allocator answers which devices claims can have. Its fields are the question;
// it is for one caller at a time.
type Allocator struct {
	Inventory *Inventory
	Class     func(name string) *devicev1.DeviceClass // nil when there is none
	// Match evaluates a selector on a device.
	Match func(expression string, d *Device) (bool, error)
	// Taken are devices that others have.
	Taken map[ID]bool
}

// Failure is why nothing can be allocated on a node, beyond there being too little.
type Failure struct{ error }

// maxSteps bounds a search: constraints can make it long.
const maxSteps = 100_000

var errTooLong = Failure{errors.New("timed out trying to allocate devices")}

// option is one way to satisfy a request.
type option struct {
	name        string // REQUEST or REQUEST/SUBREQUEST
	class       *devicev1.DeviceClass
	selectors   []devicev1.DeviceSelector
	all         bool
	count       int
	admin       bool
	tolerations []devicev1.DeviceToleration
	fits        []*Device // that match, in order
}

// request is what one request of a claim may get.
type request struct {
	claim   int
	name    string
	options []*option
}

// pick is a device that was chosen.
type pick struct {
	request *request
	option  *option
	device  *Device
}

// search is one attempt to find devices on a node.
type search struct {
	a        *Allocator
	claims   []*devicev1.ResourceClaim
	requests []*request
	devices  []*Device
	taken    map[ID]bool
	left     map[PoolID]map[counter]resource.Quantity
	picks    []pick
	steps    int
}

// Classes checks that all classes are there that a claim asks for. The words
// are upstream's.
func (a *Allocator) Classes(c *devicev1.ResourceClaim) error {
	for i := range c.Spec.Devices.Requests {
		r := &c.Spec.Devices.Requests[i]
		check := func(name, class string) error {
			if a.Class(class) == nil {
				return fmt.Errorf("request %s: device class %s does not exist", name, class)
			}
			return nil
		}
		if r.Exactly != nil {
			if err := check(r.Name, r.Exactly.DeviceClassName); err != nil {
				return err
			}
		}
		for _, s := range r.FirstAvailable {
			if err := check(r.Name+"/"+s.Name, s.DeviceClassName); err != nil {
				return err
			}
		}
	}
	return nil
}

// Allocate chooses devices on n for all claims, nil when there are not enough.
// An error is a Failure of this node, or one that no node is free of.
func (a *Allocator) Allocate(n *corev1.Node, claims []*devicev1.ResourceClaim) ([]*devicev1.AllocationResult, error) {
	s := &search{a: a, claims: claims, taken: map[ID]bool{}, left: map[PoolID]map[counter]resource.Quantity{}}
	incomplete, invalid := map[PoolID]bool{}, map[PoolID]bool{}
	for _, p := range a.Inventory.pools {
		found, err := p.reachable(n)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			continue
		}
		incomplete[p.id], invalid[p.id] = p.incomplete, p.invalid
		if !p.invalid {
			s.devices = append(s.devices, found...)
		}
		s.count(p)
	}
	for i, c := range claims {
		for j := range c.Spec.Devices.Requests {
			r, err := s.ask(i, &c.Spec.Devices.Requests[j])
			if err != nil {
				return nil, err
			}
			for _, o := range r.options {
				for id, bad := range invalid {
					if o.all && bad {
						return nil, Failure{fmt.Errorf("claim %s/%s, request %s: asks for all devices, but resource pool %s is currently invalid", c.Namespace, c.Name, o.name, id)}
					}
				}
				for id, bad := range incomplete {
					if o.all && bad {
						return nil, Failure{fmt.Errorf("claim %s/%s, request %s: asks for all devices, but resource pool %s is currently being updated", c.Namespace, c.Name, o.name, id)}
					}
				}
			}
			s.requests = append(s.requests, r)
		}
	}
	if slices.ContainsFunc(s.requests, func(r *request) bool { return !slices.ContainsFunc(r.options, (*option).possible) }) {
		return nil, nil // most nodes have no devices at all
	}
	ok, err := s.next(0)
	if !ok || err != nil {
		return nil, err
	}
	out := make([]*devicev1.AllocationResult, len(claims))
	for i := range claims {
		if out[i], err = s.result(i, n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// possible says whether there are devices enough for an option, whoever has them.
func (o *option) possible() bool {
	return o.all && len(o.fits) > 0 || !o.all && len(o.fits) >= o.count
}

// count takes what others have of a pool's counters off.
func (s *search) count(p *pool) {
	if len(p.counters) == 0 {
		return
	}
	left := map[counter]resource.Quantity{}
	for c, q := range p.counters {
		left[c] = q.DeepCopy()
	}
	s.left[p.id] = left
	for _, slice := range p.slices {
		for i := range slice.Spec.Devices {
			d := &slice.Spec.Devices[i]
			if s.a.Taken[ID{p.id.Driver, p.id.Pool, d.Name}] {
				consume(left, d, -1)
			}
		}
	}
}

func consume(left map[counter]resource.Quantity, d *devicev1.Device, sign int) {
	for _, set := range d.ConsumesCounters {
		for name, c := range set.Counters {
			q := left[counter{set.CounterSet, name}]
			if sign < 0 {
				q.Sub(c.Value)
			} else {
				q.Add(c.Value)
			}
			left[counter{set.CounterSet, name}] = q
		}
	}
}

// ask gathers the ways to satisfy a request, and the devices that match each.
func (s *search) ask(claim int, r *devicev1.DeviceRequest) (*request, error) {
	out := &request{claim: claim, name: r.Name}
	if e := r.Exactly; e != nil {
		out.options = append(out.options, &option{
			name: r.Name, class: s.a.Class(e.DeviceClassName), selectors: e.Selectors, all: e.AllocationMode == devicev1.DeviceAllocationModeAll,
			count: max(int(e.Count), 1), admin: ptr.Deref(e.AdminAccess, false), tolerations: e.Tolerations,
		})
	}
	for i := range r.FirstAvailable {
		e := &r.FirstAvailable[i]
		out.options = append(out.options, &option{
			name: r.Name + "/" + e.Name, class: s.a.Class(e.DeviceClassName), selectors: e.Selectors, all: e.AllocationMode == devicev1.DeviceAllocationModeAll,
			count: max(int(e.Count), 1), tolerations: e.Tolerations,
		})
	}
	for _, o := range out.options {
		for _, d := range s.devices {
			ok, err := s.selects(s.claims[claim], o, d)
			if err != nil {
				return nil, err
			}
			if ok {
				o.fits = append(o.fits, d)
			}
		}
	}
	return out, nil
}

// selects says whether a device is one of those that an option asks for.
func (s *search) selects(c *devicev1.ResourceClaim, o *option, d *Device) (bool, error) {
	if o.class == nil {
		return false, nil
	}
	for at, list := range [][]devicev1.DeviceSelector{o.class.Spec.Selectors, o.selectors} {
		of := "class " + o.class.Name
		if at == 1 {
			of = fmt.Sprintf("claim %s/%s", c.Namespace, c.Name)
		}
		for i, sel := range list {
			if sel.CEL == nil {
				return false, fmt.Errorf("%s: selector #%d: unsupported selector type", of, i)
			}
			ok, err := s.a.Match(sel.CEL.Expression, d)
			if err != nil {
				return false, fmt.Errorf("%s: selector #%d: %w", of, i, err)
			}
			if !ok {
				return false, nil
			}
		}
	}
	return o.all || Tolerated(d.Taints, o.tolerations), nil
}

// next satisfies the requests from the at-th on.
func (s *search) next(at int) (bool, error) {
	if at == len(s.requests) {
		return true, nil
	}
	r := s.requests[at]
	for _, o := range r.options {
		want := o.count
		if o.all {
			want = len(o.fits) // all of none is none
		}
		if !o.possible() || s.chosen(r.claim)+want > devicev1.AllocationResultsMaxSize {
			continue
		}
		if ok, err := s.take(at, o, 0, want); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// chosen counts the devices that a claim has so far.
func (s *search) chosen(claim int) int {
	n := 0
	for _, p := range s.picks {
		if p.request.claim == claim {
			n++
		}
	}
	return n
}

// take chooses want devices of an option, from its from-th on, and goes on to
// the next request; what leads nowhere is undone.
func (s *search) take(at int, o *option, from, want int) (bool, error) {
	if want == 0 {
		return s.next(at + 1)
	}
	for i := from; i <= len(o.fits)-want; i++ {
		if s.steps++; s.steps > maxSteps {
			return false, errTooLong
		}
		d := o.fits[i]
		if !s.free(o, d) || !s.constrained(s.requests[at], o, d) {
			if o.all {
				return false, nil // all means all
			}
			continue
		}
		s.picks = append(s.picks, pick{s.requests[at], o, d})
		if !o.admin {
			s.taken[d.ID] = true
			consume(s.left[d.pool()], d.Device, -1)
		}
		if ok, err := s.take(at, o, i+1, want-1); ok || err != nil {
			return ok, err
		}
		s.picks = s.picks[:len(s.picks)-1]
		if !o.admin {
			delete(s.taken, d.ID)
			consume(s.left[d.pool()], d.Device, 1)
		}
		if o.all {
			return false, nil
		}
	}
	return false, nil
}

// free says whether nobody has a device, nor the parts of which it is made. An
// administrator may look at any.
func (s *search) free(o *option, d *Device) bool {
	if o.admin {
		return true
	}
	if s.a.Taken[d.ID] || s.taken[d.ID] || o.all && !Tolerated(d.Taints, o.tolerations) {
		return false
	}
	left := s.left[d.pool()]
	for _, set := range d.ConsumesCounters {
		for name, c := range set.Counters {
			if q, ok := left[counter{set.CounterSet, name}]; !ok || q.Cmp(c.Value) < 0 {
				return false
			}
		}
	}
	return true
}

// constrained says whether a device goes with those that its claim has already.
func (s *search) constrained(r *request, o *option, d *Device) bool {
	for _, k := range s.claims[r.claim].Spec.Devices.Constraints {
		if !under(k.Requests, r, o) {
			continue
		}
		name := ptr.Deref(k.MatchAttribute, ptr.Deref(k.DistinctAttribute, ""))
		mine, ok := d.attribute(name)
		if !ok {
			return false
		}
		for _, p := range s.picks {
			if p.request.claim != r.claim || !under(k.Requests, p.request, p.option) {
				continue
			}
			other, _ := p.device.attribute(name)
			if same := equality.Semantic.DeepEqual(mine, other); same == (k.DistinctAttribute != nil) {
				return false
			}
		}
	}
	return true
}

// under says whether a list of requests names this one; an empty list names all.
func under(names []string, r *request, o *option) bool {
	return len(names) == 0 || slices.Contains(names, r.name) || slices.Contains(names, o.name)
}

// attribute finds an attribute by its full name; the driver's own have no domain.
func (d *Device) attribute(name devicev1.FullyQualifiedName) (devicev1.DeviceAttribute, bool) {
	if v, ok := d.Attributes[devicev1.QualifiedName(name)]; ok {
		return v, true
	}
	domain, id, _ := strings.Cut(string(name), "/")
	if domain != d.Driver {
		return devicev1.DeviceAttribute{}, false
	}
	v, ok := d.Attributes[devicev1.QualifiedName(id)]
	return v, ok
}

// result is what a claim gets.
func (s *search) result(claim int, n *corev1.Node) (*devicev1.AllocationResult, error) {
	out := &devicev1.AllocationResult{}
	var devices []*Device
	used := map[string]bool{}
	var classes []*option
	for _, p := range s.picks {
		if p.request.claim != claim {
			continue
		}
		r := devicev1.DeviceRequestAllocationResult{Request: p.option.name, Driver: p.device.Driver, Pool: p.device.Pool, Device: p.device.Device.Name, Tolerations: p.option.tolerations}
		if p.option.admin {
			r.AdminAccess = ptr.To(true)
		}
		out.Devices.Results = append(out.Devices.Results, r)
		devices = append(devices, p.device)
		if !used[p.option.name] {
			used[p.option.name] = true
			classes = append(classes, p.option)
		}
	}
	for _, o := range classes {
		for _, c := range o.class.Spec.Config {
			out.Devices.Config = append(out.Devices.Config, devicev1.DeviceAllocationConfiguration{
				Source: devicev1.AllocationConfigSourceClass, Requests: []string{o.name}, DeviceConfiguration: c.DeviceConfiguration,
			})
		}
	}
	for _, c := range s.claims[claim].Spec.Devices.Config {
		if len(c.Requests) > 0 && !slices.ContainsFunc(c.Requests, func(name string) bool { return concerns(name, used) }) {
			continue
		}
		out.Devices.Config = append(out.Devices.Config, devicev1.DeviceAllocationConfiguration{
			Source: devicev1.AllocationConfigSourceClaim, Requests: c.Requests, DeviceConfiguration: c.DeviceConfiguration,
		})
	}
	var err error
	out.NodeSelector, err = where(devices)
	return out, err
}

// concerns says whether a request, or a chosen alternative of it, is among those used.
func concerns(name string, used map[string]bool) bool {
	if used[name] {
		return true
	}
	for u := range used {
		if strings.HasPrefix(u, name+"/") {
			return true
		}
	}
	return false
}

// where says which nodes reach all of the devices; nil is all nodes.
func where(devices []*Device) (*corev1.NodeSelector, error) {
	term := corev1.NodeSelectorTerm{}
	for _, d := range devices {
		name, selector := d.slice.Spec.NodeName, d.slice.Spec.NodeSelector
		if ptr.Deref(d.slice.Spec.PerDeviceNodeSelection, false) {
			name, selector = d.NodeName, d.NodeSelector
		}
		if name != nil {
			only := corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{*name}}
			return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{only}}}}, nil
		}
		if selector == nil || len(selector.NodeSelectorTerms) == 0 {
			continue
		}
		if len(selector.NodeSelectorTerms) > 1 {
			return nil, fmt.Errorf("unsupported ResourceSlice.NodeSelector with %d terms", len(selector.NodeSelectorTerms))
		}
		t := &selector.NodeSelectorTerms[0]
		term.MatchFields, term.MatchExpressions = join(term.MatchFields, t.MatchFields), join(term.MatchExpressions, t.MatchExpressions)
	}
	if len(term.MatchFields)+len(term.MatchExpressions) == 0 {
		return nil, nil
	}
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}, nil
}

func join(have, more []corev1.NodeSelectorRequirement) []corev1.NodeSelectorRequirement {
	for _, m := range more {
		if !slices.ContainsFunc(have, func(h corev1.NodeSelectorRequirement) bool { return equality.Semantic.DeepEqual(h, m) }) {
			have = append(have, m)
		}
	}
	return have
}

package endpointslice

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/semantics/endpoint"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// perSlice is upstream's default of how many endpoints one slice holds.
const perSlice = 100

const manager = "endpointslice-controller.k8s.io"

// plan is what must be written.
type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// node is what slices tell of a node.
type node struct{ zone string }

// group is the endpoints of one address family and one list of ports.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

func groupKey(t discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	var b strings.Builder
	b.WriteString(string(t))
	for _, p := range ports {
		fmt.Fprintf(&b, "|%s %s", deref(p.Name), deref(p.Protocol))
		if p.Port != nil {
			fmt.Fprintf(&b, " %d", *p.Port)
		}
		if p.AppProtocol != nil {
			fmt.Fprintf(&b, " %s", *p.AppProtocol)
		}
	}
	return b.String()
}

func deref[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}

// decide says how the service's slices get from what they are to what its pods call for.
// have are the slices of the service that this loop manages.
func decide(s *corev1.Service, pods []*corev1.Pod, nodes func(string) (node, bool), have []*discoveryv1.EndpointSlice) plan {
	groups := wanted(s, pods, nodes)
	var p plan
	labels := labelsOf(s)
	existing := map[string][]*discoveryv1.EndpointSlice{}
	for _, sl := range have {
		key := groupKey(sl.AddressType, sl.Ports)
		if groups[key] == nil {
			p.remove = append(p.remove, sl)
			continue
		}
		existing[key] = append(existing[key], sl)
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		p.fill(s, groups[key], existing[key], labels)
	}
	// Turning a slice that must go into one that must come saves a write, and readers a gap.
	for len(p.remove) > 0 && len(p.create) > 0 {
		old, c := p.remove[0], p.create[0]
		if old.AddressType != c.AddressType {
			break
		}
		n := old.DeepCopy()
		n.Endpoints, n.Ports, n.Labels, n.OwnerReferences = c.Endpoints, c.Ports, c.Labels, c.OwnerReferences
		p.update = append(p.update, n)
		p.remove, p.create = p.remove[1:], p.create[1:]
	}
	return p
}

// wanted computes the groups; a family without endpoints has one empty group,
// so that there always is a slice to watch.
func wanted(s *corev1.Service, pods []*corev1.Pod, nodes func(string) (node, bool)) map[string]*group {
	out := map[string]*group{}
	for _, f := range endpoint.Families(s) {
		t := discoveryv1.AddressType(f)
		found := false
		for _, p := range pods {
			addr := endpoint.Address(p, f)
			if addr == "" || !endpoint.Listed(p, true) {
				continue
			}
			ports, ok := portsOf(s, p)
			if !ok {
				continue
			}
			found = true
			key := groupKey(t, ports)
			g := out[key]
			if g == nil {
				g = &group{family: t, ports: ports}
				out[key] = g
			}
			g.endpoints = append(g.endpoints, endpointOf(s, p, addr, nodes))
		}
		if !found {
			out[groupKey(t, nil)] = &group{family: t}
		}
	}
	return out
}

func portsOf(s *corev1.Service, p *corev1.Pod) ([]discoveryv1.EndpointPort, bool) {
	ports := []discoveryv1.EndpointPort{}
	for i := range s.Spec.Ports {
		sp := &s.Spec.Ports[i]
		if n, ok := endpoint.Port(p, sp); ok {
			ports = append(ports, discoveryv1.EndpointPort{Name: &sp.Name, Port: &n, Protocol: &sp.Protocol, AppProtocol: sp.AppProtocol})
		}
	}
	slices.SortStableFunc(ports, func(a, b discoveryv1.EndpointPort) int {
		return cmp.Or(cmp.Compare(*a.Name, *b.Name), cmp.Compare(*a.Port, *b.Port))
	})
	return ports, len(ports) > 0 || len(s.Spec.Ports) == 0
}

func endpointOf(s *corev1.Service, p *corev1.Pod, addr string, nodes func(string) (node, bool)) discoveryv1.Endpoint {
	serving, terminating := pod.Ready(p), p.DeletionTimestamp != nil
	ready := s.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{addr},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if h := endpoint.Hostname(p, s); h != "" {
		e.Hostname = &h
	}
	if p.Spec.NodeName == "" {
		return e
	}
	name := p.Spec.NodeName
	e.NodeName = &name
	n, ok := nodes(name)
	if ok && n.zone != "" {
		e.Zone = &n.zone
	}
	e.Hints = hints(s, &e)
	return e
}

// hints says whose traffic should come here, if the service cares.
func hints(s *corev1.Service, e *discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	if s.Spec.TrafficDistribution == nil || e.Conditions.Ready != nil && !*e.Conditions.Ready {
		return nil
	}
	h := &discoveryv1.EndpointHints{}
	if e.Zone != nil {
		h.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
	}
	switch *s.Spec.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
	case corev1.ServiceTrafficDistributionPreferSameNode:
		h.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
	default:
		return nil
	}
	if h.ForZones == nil && h.ForNodes == nil {
		return nil
	}
	return h
}

func labelsOf(s *corev1.Service) map[string]string {
	out := map[string]string{}
	for k, v := range s.Labels {
		if k != discoveryv1.LabelServiceName && k != discoveryv1.LabelManagedBy && k != corev1.IsHeadlessService {
			out[k] = v
		}
	}
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	out[discoveryv1.LabelServiceName] = s.Name
	out[discoveryv1.LabelManagedBy] = manager
	return out
}

// fill puts a group's endpoints into slices, moving as few as possible.
func (p *plan) fill(s *corev1.Service, g *group, have []*discoveryv1.EndpointSlice, labels map[string]string) {
	left := map[string]discoveryv1.Endpoint{}
	for _, e := range g.endpoints {
		left[string(e.TargetRef.UID)+e.Addresses[0]] = e
	}
	type slot struct {
		was, now *discoveryv1.EndpointSlice
		changed  bool
	}
	var slots []*slot
	slices.SortFunc(have, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	for _, sl := range have {
		now := sl.DeepCopy()
		now.Endpoints = nil
		for _, e := range sl.Endpoints {
			if e.TargetRef == nil || len(e.Addresses) == 0 {
				continue
			}
			key := string(e.TargetRef.UID) + e.Addresses[0]
			if want, ok := left[key]; ok {
				now.Endpoints = append(now.Endpoints, want)
				delete(left, key)
			}
		}
		slots = append(slots, &slot{was: sl, now: now})
	}
	// Fullest first: fewer slices are touched.
	slices.SortStableFunc(slots, func(a, b *slot) int { return cmp.Compare(len(b.now.Endpoints), len(a.now.Endpoints)) })
	keys := slices.Sorted(maps.Keys(left))
	for _, st := range slots {
		for len(keys) > 0 && len(st.now.Endpoints) < perSlice {
			st.now.Endpoints = append(st.now.Endpoints, left[keys[0]])
			keys = keys[1:]
		}
	}
	kept := 0
	for i, st := range slots {
		last := i == len(slots)-1 && kept == 0 && len(keys) == 0
		if len(st.now.Endpoints) == 0 && !(last && len(g.endpoints) == 0) {
			p.remove = append(p.remove, st.was)
			continue
		}
		kept++
		st.now.Labels = labels
		if !equality.Semantic.DeepEqual(st.was.Endpoints, st.now.Endpoints) || !maps.Equal(st.was.Labels, labels) {
			p.update = append(p.update, st.now)
		}
	}
	for len(keys) > 0 || kept == 0 {
		sl := empty(s, g, labels)
		n := min(len(keys), perSlice)
		for _, k := range keys[:n] {
			sl.Endpoints = append(sl.Endpoints, left[k])
		}
		keys = keys[n:]
		kept++
		p.create = append(p.create, sl)
	}
}

func empty(s *corev1.Service, g *group, labels map[string]string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: s.Name + "-", Namespace: s.Namespace, Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: g.family, Ports: g.ports, Endpoints: []discoveryv1.Endpoint{},
	}
}

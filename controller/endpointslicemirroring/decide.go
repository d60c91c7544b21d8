package endpointslicemirroring

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/semantics/endpoint"
)

// perSubset is upstream's default of how many addresses of a subset are mirrored.
const perSubset = 1000

const manager = "endpointslicemirroring-controller.k8s.io"

// mirrored says whether the object is one that people or other controllers
// keep for a service without selector.
func mirrored(e *corev1.Endpoints, s *corev1.Service) bool {
	return e.DeletionTimestamp == nil && e.Labels[discoveryv1.LabelSkipMirror] != "true" &&
		e.Annotations["control-plane.alpha.kubernetes.io/leader"] == "" && s.Spec.Selector == nil
}

type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// decide says how the slices get to show what e says.
func decide(e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) plan {
	var p plan
	left := slices.SortedFunc(slices.Values(have), func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	for _, want := range wanted(e) {
		i := slices.IndexFunc(left, func(h *discoveryv1.EndpointSlice) bool {
			return h.AddressType == want.AddressType && equality.Semantic.DeepEqual(h.Ports, want.Ports)
		})
		if i < 0 {
			p.create = append(p.create, want)
			continue
		}
		old := left[i]
		left = slices.Delete(left, i, i+1)
		next := old.DeepCopy()
		next.Endpoints, next.Labels, next.Annotations = want.Endpoints, want.Labels, want.Annotations
		if !equality.Semantic.DeepEqual(old.Endpoints, next.Endpoints) || !maps.Equal(old.Labels, next.Labels) || !maps.Equal(old.Annotations, next.Annotations) {
			p.update = append(p.update, next)
		}
	}
	p.remove = left
	return p
}

func wanted(e *corev1.Endpoints) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for i := range e.Subsets {
		s := &e.Subsets[i]
		families := map[corev1.IPFamily][]discoveryv1.Endpoint{}
		n := 0
		add := func(list []corev1.EndpointAddress, ready bool) {
			for _, a := range list {
				if n++; n > perSubset {
					return
				}
				f := endpoint.Family(a.IP)
				ep := discoveryv1.Endpoint{Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName}
				if a.Hostname != "" {
					ep.Hostname = &a.Hostname
				}
				families[f] = append(families[f], ep)
			}
		}
		add(s.Addresses, true)
		add(s.NotReadyAddresses, false)
		for _, f := range slices.Sorted(maps.Keys(families)) {
			out = append(out, slice(e, s, discoveryv1.AddressType(f), families[f]))
		}
	}
	return out
}

func slice(e *corev1.Endpoints, s *corev1.EndpointSubset, t discoveryv1.AddressType, list []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	slices.SortFunc(list, func(a, b discoveryv1.Endpoint) int { return strings.Compare(a.Addresses[0], b.Addresses[0]) })
	out := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: e.Name + "-", Namespace: e.Namespace, Labels: maps.Clone(e.Labels), Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: t, Endpoints: list, Ports: []discoveryv1.EndpointPort{},
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Labels[discoveryv1.LabelServiceName], out.Labels[discoveryv1.LabelManagedBy] = e.Name, manager
	for k, v := range e.Annotations {
		if k != corev1.EndpointsLastChangeTriggerTime && k != corev1.LastAppliedConfigAnnotation {
			out.Annotations[k] = v
		}
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	return out
}

func describe(p plan) string {
	return fmt.Sprintf("%d to create, %d to update, %d to delete", len(p.create), len(p.update), len(p.remove))
}

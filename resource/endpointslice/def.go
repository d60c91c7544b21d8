// Package endpointslice defines the EndpointSlice kind.
//
// Job: defaults, rules and columns of discovery/v1 EndpointSlice and its retired
// v1beta1, where zone and node were keys of a map.
//
// Not its job: finding endpoints.
//
// Invariants: the address type of a slice never changes; generation counts its
// endpoints, ports and labels.
package endpointslice

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[discoveryv1.EndpointSlice]{
		Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice", Plural: "endpointslices",
		Default: setDefaults, Validate: validate, Warnings: warnings,
		// The server counts a change of any of these.
		Generation: func(s *discoveryv1.EndpointSlice) any {
			return []any{s.Endpoints, s.Ports, s.AddressType, s.Labels, s.Annotations}
		},
		Prepare: prepare,
		Columns: []resource.Column[discoveryv1.EndpointSlice]{
			resource.NameColumn[discoveryv1.EndpointSlice](),
			{
				Name: "AddressType", Description: resource.Doc(discoveryv1.EndpointSlice{}, "addressType"),
				Cell: func(s *discoveryv1.EndpointSlice, _ time.Time) any { return string(s.AddressType) },
			},
			{
				Name: "Ports", Description: resource.Doc(discoveryv1.EndpointSlice{}, "ports"),
				Cell: func(s *discoveryv1.EndpointSlice, _ time.Time) any { return portsText(s.Ports) },
			},
			{
				Name: "Endpoints", Description: resource.Doc(discoveryv1.EndpointSlice{}, "endpoints"),
				Cell: func(s *discoveryv1.EndpointSlice, _ time.Time) any { return endpointsText(s.Endpoints) },
			},
			resource.AgeColumn[discoveryv1.EndpointSlice](),
		},
		Unconditional: true,
		Also:          []resource.Version{beta()},
	})
}

func setDefaults(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = new("")
		}
		if p.Protocol == nil {
			p.Protocol = new(corev1.ProtocolTCP)
		}
	}
}

// prepare drops the old map from what users of v1 create: only the retired
// version could set it. What is stored already may stay.
func prepare(r *resource.Request, next, prev *discoveryv1.EndpointSlice) {
	if prev != nil || r.Version.Version != "v1" {
		return
	}
	for i := range next.Endpoints {
		next.Endpoints[i].DeprecatedTopology = nil
	}
}

func portsText(ports []discoveryv1.EndpointPort) string {
	if len(ports) == 0 {
		return "<unset>"
	}
	return list(len(ports), func(i int) string {
		p := ports[i]
		text := "*"
		if p.Port != nil {
			text = strconv.Itoa(int(*p.Port))
		} else if p.Name != nil && *p.Name != "" {
			text = *p.Name
		}
		return text
	})
}

func endpointsText(endpoints []discoveryv1.Endpoint) string {
	if len(endpoints) == 0 {
		return "<unset>"
	}
	var all []string
	for _, e := range endpoints {
		all = append(all, e.Addresses...)
	}
	return list(len(all), func(i int) string { return all[i] })
}

// list words the first three of n things and counts the others.
func list(n int, word func(int) string) string {
	parts := make([]string, min(n, 3))
	for i := range parts {
		parts[i] = word(i)
	}
	text := strings.Join(parts, ",")
	if n > 3 {
		text += fmt.Sprintf(" + %d more...", n-3)
	}
	return text
}

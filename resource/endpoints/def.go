// Package endpoints defines the Endpoints kind.
//
// Job: rules and columns of core/v1 Endpoints, and the one canonical way to
// write a set of addresses and ports as subsets.
//
// Not its job: finding endpoints.
//
// Invariants: stored subsets are canonical: no two subsets have the same
// addresses, no address is ready and not ready at one port.
package endpoints

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/endpoint"
)

const deprecated = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Endpoints]{
		Version: "v1", Kind: "Endpoints", Plural: "endpoints", Singular: "endpoints", Prefix: "services/endpoints",
		Short:   []string{"ep"},
		Default: setDefaults, Validate: validate,
		Prepare: func(_ *resource.Request, next, _ *corev1.Endpoints) { next.Subsets = endpoint.Repack(next.Subsets) },
		Warning: deprecated,
		Columns: []resource.Column[corev1.Endpoints]{
			resource.NameColumn[corev1.Endpoints](),
			{
				Name: "Endpoints", Description: resource.Doc(corev1.Endpoints{}, "subsets"),
				Cell: func(e *corev1.Endpoints, _ time.Time) any { return cell(e.Subsets) },
			},
			resource.AgeColumn[corev1.Endpoints](),
		},
		Unconditional: true, CreateOnUpdate: true,
	})
}

func setDefaults(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
				p.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// cell names the first three endpoints and counts the others.
func cell(subsets []corev1.EndpointSubset) string {
	const shown = 3
	var list []string
	for _, s := range subsets {
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				list = append(list, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	switch {
	case len(list) == 0:
		return "<none>"
	case len(list) > shown:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ","), len(list)-shown)
	}
	return strings.Join(list, ",")
}

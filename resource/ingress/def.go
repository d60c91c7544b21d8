// Package ingress defines the Ingress kind.
//
// Job: rules, columns and conversions of networking.k8s.io/v1 Ingress and its
// retired versions, which named backends differently.
//
// Not its job: routing.
//
// Invariants: every path names its type and one backend.
package ingress

import (
	"fmt"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sampan-dev/sampan/resource"
)

type ing = networkingv1.Ingress

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[ing]{
		Group: networkingv1.GroupName, Version: "v1", Kind: "Ingress", Plural: "ingresses", Prefix: "ingress",
		Short:      []string{"ing"},
		Generation: func(i *ing) any { return &i.Spec },
		Prepare: func(_ *resource.Request, next, prev *ing) {
			next.Status = networkingv1.IngressStatus{}
			if prev != nil {
				next.Status = prev.Status
			}
		},
		Validate: validate,
		Warnings: warnings,
		Subs: []resource.Sub[ing]{
			resource.StatusSub(func(next, prev *ing) { next.Spec = prev.Spec }, validateStatus),
		},
		Columns: []resource.Column[ing]{
			resource.NameColumn[ing](),
			{Name: "Class", Description: "The name of the IngressClass resource that should be used for additional configuration", Cell: func(i *ing, _ time.Time) any {
				if i.Spec.IngressClassName != nil {
					return *i.Spec.IngressClassName
				}
				return "<none>"
			}},
			{Name: "Hosts", Description: "Hosts that incoming requests are matched against before the ingress rule", Cell: func(i *ing, _ time.Time) any { return hosts(i) }},
			{Name: "Address", Description: "Address is a list containing ingress points for the load-balancer", Cell: func(i *ing, _ time.Time) any { return address(i) }},
			{Name: "Ports", Description: "Ports of TLS configurations that open", Cell: func(i *ing, _ time.Time) any {
				if len(i.Spec.TLS) > 0 {
					return "80, 443"
				}
				return "80"
			}},
			resource.AgeColumn[ing](),
		},
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also:          versions(),
	})
}

// hosts names the first three and counts the others.
func hosts(i *ing) string {
	const shown = 3
	var names []string
	for _, r := range i.Spec.Rules {
		if r.Host != "" && len(names) < shown {
			names = append(names, r.Host)
		}
	}
	switch {
	case len(names) == 0:
		return "*"
	case len(names) == shown && len(i.Spec.Rules) > shown:
		return fmt.Sprintf("%s + %d more...", strings.Join(names, ","), len(i.Spec.Rules)-shown)
	}
	return strings.Join(names, ",")
}

func address(i *ing) string {
	var found []string
	for _, in := range i.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			found = append(found, in.IP)
		} else if in.Hostname != "" {
			found = append(found, in.Hostname)
		}
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), ",")
}

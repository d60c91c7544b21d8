// Package service defines the Service kind.
//
// Job: defaults, rules and columns of core/v1 Service; which cluster addresses
// and node ports a service takes of the Ledger and when it gives them back.
//
// Not its job: keeping the books of addresses and ports (the Ledger's), and
// carrying traffic.
//
// Invariants: spec.clusterIP is spec.clusterIPs[0]; what a service holds is what
// its spec says, so the deletion of a service gives back all of it.
package service

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Service]{
		Version: "v1", Kind: "Service", Plural: "services", Prefix: "services/specs",
		Short: []string{"svc"}, Categories: []string{"all"},
		Default: setDefaults, Prepare: prepare, Validate: validate, Warnings: warnings, Ledger: ledger,
		Name: apivalidation.NameIsDNSLabel,
		Subs: []resource.Sub[corev1.Service]{
			resource.StatusSub(func(next, prev *corev1.Service) { next.Spec = prev.Spec }, validateStatus),
		},
		Connects: []resource.Connect{{
			Name:  "proxy",
			Kind:  schema.GroupVersionKind{Version: "v1", Kind: "ServiceProxyOptions"},
			Verbs: []string{"create", "delete", "get", "patch", "update"},
		}},
		Columns: columns(),
		Selectable: map[string]func(*corev1.Service) string{
			"spec.clusterIP": func(s *corev1.Service) string { return s.Spec.ClusterIP },
			"spec.type":      func(s *corev1.Service) string { return string(s.Spec.Type) },
		},
		Unconditional: true, CreateOnUpdate: true,
		ResetFields: []string{"status"},
	})
}

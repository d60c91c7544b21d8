// Package node defines the Node kind.
//
// Job: rules and columns of core/v1 Node, its status and proxy subresources.
//
// Not its job: what a kubelet may change of which node (authorization and
// admission's).
//
// Invariants: pod CIDRs and the provider are set once; the main resource never
// changes status, the status subresource never spec.
package node

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.Node]{
		Version: "v1", Kind: "Node", Plural: "nodes",
		Short: []string{"no"}, ClusterScoped: true, Prefix: "minions",
		Default: setDefaults, Prepare: prepare, Validate: validate, Warnings: warnings,
		Subs: []resource.Sub[corev1.Node]{
			{Name: "status", Prepare: prepareStatus, Validate: validateStatus, ResetFields: []string{"spec"}},
		},
		Connects: []resource.Connect{{
			Name:  "proxy",
			Kind:  schema.GroupVersionKind{Version: "v1", Kind: "NodeProxyOptions"},
			Verbs: []string{"create", "delete", "get", "patch", "update"},
		}},
		Columns: columns(),
		Selectable: map[string]func(*corev1.Node) string{
			"spec.unschedulable": func(n *corev1.Node) string { return strconv.FormatBool(n.Spec.Unschedulable) },
		},
		Unconditional: true,
		ResetFields:   []string{"status"},
	})
}

// setDefaults makes what a node can give its pods equal to what it has, where
// the kubelet did not say otherwise.
func setDefaults(n *corev1.Node) {
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	// The single and the plural pod CIDR say the same.
	switch {
	case n.Spec.PodCIDR != "" && len(n.Spec.PodCIDRs) == 0:
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	case n.Spec.PodCIDR == "" && len(n.Spec.PodCIDRs) > 0:
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
}

// prepare lets a node be created with its status: a kubelet registers so.
func prepare(_ *resource.Request, next, prev *corev1.Node) {
	if prev != nil {
		next.Status = prev.Status
	}
	if prev == nil || prev.Spec.ConfigSource == nil {
		next.Spec.ConfigSource = nil
	}
}

func prepareStatus(_ *resource.Request, next, prev *corev1.Node) { next.Spec = prev.Spec }

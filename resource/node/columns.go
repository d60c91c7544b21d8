package node

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
)

const (
	rolePrefix = "node-role.kubernetes.io/"
	roleLabel  = "kubernetes.io/role"
)

func columns() []resource.Column[corev1.Node] {
	info := corev1.NodeSystemInfo{}
	wide := func(name, doc string, get func(*corev1.Node) string) resource.Column[corev1.Node] {
		return resource.Column[corev1.Node]{
			Name: name, Description: doc, Wide: true,
			Cell: func(n *corev1.Node, _ time.Time) any { return get(n) },
		}
	}
	addresses := resource.Doc(corev1.NodeStatus{}, "addresses")
	return []resource.Column[corev1.Node]{
		resource.NameColumn[corev1.Node](),
		{
			Name: "Status", Description: "The status of the node",
			Cell: func(n *corev1.Node, _ time.Time) any { return statusText(n) },
		},
		{
			Name: "Roles", Description: "The roles of the node",
			Cell: func(n *corev1.Node, _ time.Time) any { return rolesText(n) },
		},
		resource.AgeColumn[corev1.Node](),
		{
			Name: "Version", Description: resource.Doc(info, "kubeletVersion"),
			Cell: func(n *corev1.Node, _ time.Time) any { return n.Status.NodeInfo.KubeletVersion },
		},
		wide("Internal-IP", addresses, func(n *corev1.Node) string { return address(n, corev1.NodeInternalIP) }),
		wide("External-IP", addresses, func(n *corev1.Node) string { return address(n, corev1.NodeExternalIP) }),
		wide("OS-Image", resource.Doc(info, "osImage"), func(n *corev1.Node) string { return orUnknown(n.Status.NodeInfo.OSImage) }),
		wide("Kernel-Version", resource.Doc(info, "kernelVersion"), func(n *corev1.Node) string { return orUnknown(n.Status.NodeInfo.KernelVersion) }),
		wide("Container-Runtime", resource.Doc(info, "containerRuntimeVersion"), func(n *corev1.Node) string {
			return orUnknown(n.Status.NodeInfo.ContainerRuntimeVersion)
		}),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}

// statusText is Ready, NotReady or Unknown, with a note for a cordoned node.
func statusText(n *corev1.Node) string {
	text := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			text = "NotReady"
			if c.Status == corev1.ConditionTrue {
				text = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		text += ",SchedulingDisabled"
	}
	return text
}

func rolesText(n *corev1.Node) string {
	roles := map[string]bool{}
	for k, v := range n.Labels {
		if role, ok := strings.CutPrefix(k, rolePrefix); ok && role != "" {
			roles[role] = true
		} else if k == roleLabel && v != "" {
			roles[v] = true
		}
	}
	if len(roles) == 0 {
		return "<none>"
	}
	return strings.Join(slices.Sorted(maps.Keys(roles)), ",")
}

func address(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return "<none>"
}

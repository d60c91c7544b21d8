package service

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/resource"
)

func columns() []resource.Column[corev1.Service] {
	column := func(name, doc string, cell func(*corev1.Service) string) resource.Column[corev1.Service] {
		return resource.Column[corev1.Service]{
			Name: name, Description: resource.Doc(corev1.ServiceSpec{}, doc),
			Cell: func(s *corev1.Service, _ time.Time) any { return cell(s) },
		}
	}
	selector := column("Selector", "selector", func(s *corev1.Service) string { return resource.LabelsCell(s.Spec.Selector) })
	selector.Wide = true
	return []resource.Column[corev1.Service]{
		resource.NameColumn[corev1.Service](),
		column("Type", "type", func(s *corev1.Service) string { return string(s.Spec.Type) }),
		column("Cluster-IP", "clusterIP", clusterIP),
		column("External-IP", "externalIPs", externalIP),
		column("Port(s)", "ports", portsText),
		resource.AgeColumn[corev1.Service](),
		selector,
	}
}

func clusterIP(s *corev1.Service) string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs[0]
	}
	return "<none>"
}

func externalIP(s *corev1.Service) string {
	var found []string
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
	case corev1.ServiceTypeLoadBalancer:
		for _, in := range s.Status.LoadBalancer.Ingress {
			if in.IP != "" {
				found = append(found, in.IP)
			} else if in.Hostname != "" {
				found = append(found, in.Hostname)
			}
		}
		slices.Sort(found)
		found = slices.Compact(found)
		if len(found) == 0 && len(s.Spec.ExternalIPs) == 0 {
			return "<pending>"
		}
	default:
		return "<unknown>"
	}
	found = append(found, s.Spec.ExternalIPs...)
	if len(found) == 0 {
		return "<none>"
	}
	return strings.Join(found, ",")
}

func portsText(s *corev1.Service) string {
	if len(s.Spec.Ports) == 0 {
		return "<none>"
	}
	parts := make([]string, len(s.Spec.Ports))
	for i, p := range s.Spec.Ports {
		parts[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			parts[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return strings.Join(parts, ",")
}

package spec

import (
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// SandboxConfig returns what a pod's sandbox shall be.
func SandboxConfig(pod *corev1.Pod, node *Node, attempt uint32, logDir, cgroupParent string) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := DNS(pod, node)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		DnsConfig:    dns,
		LogDirectory: logDir,
		Labels:       cri.PodLabels(pod),
		Annotations:  pod.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			SecurityContext: sandboxSecurity(pod),
			Resources:       &runtimeapi.LinuxContainerResources{},
			Overhead:        &runtimeapi.LinuxContainerResources{},
		},
	}
	if !pod.Spec.HostNetwork {
		if out.Hostname, err = SandboxHostname(pod, node.ClusterDomain); err != nil {
			return nil, err
		}
	}
	if p := pod.Spec.SecurityContext; p != nil && len(p.Sysctls) > 0 {
		out.Linux.Sysctls = map[string]string{}
		for _, s := range p.Sysctls {
			out.Linux.Sysctls[s.Name] = s.Value
		}
	}
	for c := range Containers(pod) {
		for _, p := range c.Ports {
			host := p.HostPort
			if pod.Spec.HostNetwork {
				host = 0
			}
			out.PortMappings = append(out.PortMappings, &runtimeapi.PortMapping{
				ContainerPort: p.ContainerPort, HostPort: host, HostIp: p.HostIP, Protocol: protocol(p.Protocol),
			})
		}
	}
	return out, nil
}

// Containers yields a pod's sidecars and ordinary containers: those that live
// as long as the pod.
func Containers(pod *corev1.Pod) func(func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for i := range pod.Spec.InitContainers {
			if semantics.Sidecar(&pod.Spec.InitContainers[i]) && !yield(&pod.Spec.InitContainers[i]) {
				return
			}
		}
		for i := range pod.Spec.Containers {
			if !yield(&pod.Spec.Containers[i]) {
				return
			}
		}
	}
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

func sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	for c := range Containers(pod) {
		if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			out.Privileged = true
		}
	}
	for i := range pod.Spec.InitContainers {
		if s := pod.Spec.InitContainers[i].SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			out.Privileged = true
		}
	}
	if p := pod.Spec.SecurityContext; p != nil {
		if p.RunAsUser != nil {
			out.RunAsUser = &runtimeapi.Int64Value{Value: *p.RunAsUser}
		}
		if p.RunAsGroup != nil {
			out.RunAsGroup = &runtimeapi.Int64Value{Value: *p.RunAsGroup}
		}
		out.SupplementalGroups = groups(p)
	}
	return out
}

// Hostname returns a pod's host name and domain.
func Hostname(pod *corev1.Pod, clusterDomain string) (host, domain string) {
	host = pod.Name
	if pod.Spec.HostnameOverride != nil && *pod.Spec.HostnameOverride != "" {
		return *pod.Spec.HostnameOverride, ""
	}
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	} else if len(host) > 63 {
		host = strings.TrimRight(host[:63], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	return host, domain
}

// SandboxHostname is the host name the kernel shall know.
func SandboxHostname(pod *corev1.Pod, clusterDomain string) (string, error) {
	host, domain := Hostname(pod, clusterDomain)
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN && domain != "" {
		fqdn := host + "." + domain
		if len(fqdn) > 64 {
			return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", fqdn, len(fqdn))
		}
		return fqdn, nil
	}
	return host, nil
}

// Limits of resolv.conf that are kept.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// DNS returns the pod's resolver configuration.
func DNS(pod *corev1.Pod, node *Node) (*runtimeapi.DNSConfig, error) {
	out := parseResolv(node.ResolvConf)
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork || policy == "" {
		if policy == "" && !pod.Spec.HostNetwork {
			policy = corev1.DNSClusterFirst
		} else {
			policy = corev1.DNSDefault
		}
	}
	switch policy {
	case corev1.DNSNone:
		out = &runtimeapi.DNSConfig{}
	case corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet:
		if len(node.ClusterDNS) > 0 {
			out.Servers = append([]string(nil), node.ClusterDNS...)
			if d := node.ClusterDomain; d != "" {
				out.Searches = unique(append([]string{pod.Namespace + ".svc." + d, "svc." + d, d}, out.Searches...))
			}
			out.Options = []string{"ndots:5"}
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		out.Options = mergeOptions(out.Options, c.Options)
	}
	return limitDNS(out), nil
}

func limitDNS(c *runtimeapi.DNSConfig) *runtimeapi.DNSConfig {
	if len(c.Servers) > maxNameservers {
		c.Servers = c.Servers[:maxNameservers]
	}
	if len(c.Searches) > maxSearches {
		c.Searches = c.Searches[:maxSearches]
	}
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
	return c
}

func parseResolv(text string) *runtimeapi.DNSConfig {
	out := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			out.Servers = append(out.Servers, f[1])
		case "search":
			out.Searches = nil
			for _, s := range f[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				out.Searches = append(out.Searches, s)
			}
		case "options":
			out.Options = append(out.Options, f[1:]...)
		}
	}
	return out
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// mergeOptions lets the pod's options win over those of the same name.
func mergeOptions(base []string, more []corev1.PodDNSConfigOption) []string {
	out := append([]string(nil), base...)
	for _, o := range more {
		out = slices.DeleteFunc(out, func(s string) bool { n, _, _ := strings.Cut(s, ":"); return n == o.Name })
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		out = append(out, text)
	}
	return out
}

// Hosts returns the content of a pod's /etc/hosts.
func Hosts(pod *corev1.Pod, node *Node, ips []string, nodeHosts string) string {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(nodeHosts)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n")
		b.WriteString("127.0.0.1\tlocalhost\n")
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		host, domain := Hostname(pod, node.ClusterDomain)
		for _, ip := range ips {
			if net.ParseIP(ip) == nil {
				continue
			}
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, host, domain, host)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, host)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.String()
}

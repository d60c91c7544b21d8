package kubelet

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// safeSysctls touch no other pod of the node.
func safeSysctls() []string {
	return []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
		"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	}
}

// sysctlSpace names the namespace that keeps a kernel parameter to a pod; "" is none.
func sysctlSpace(name string) string {
	switch {
	case strings.HasPrefix(name, "net."):
		return "net"
	case strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"), name == "kernel.sem", strings.HasPrefix(name, "fs.mqueue."):
		return "ipc"
	}
	return ""
}

// CheckSysctls says which kernel parameter of pod is not for it to set. allowed
// are the unsafe ones that the node lets through, a * at the end for any tail.
func CheckSysctls(pod *corev1.Pod, allowed []string) error {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	list := append(safeSysctls(), allowed...)
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := s.Name
		if first := strings.IndexAny(name, "./"); first >= 0 && name[first] == '/' { // the other way to write it
			name = strings.NewReplacer("/", ".", ".", "/").Replace(name)
		}
		if !slices.ContainsFunc(list, func(p string) bool {
			prefix, any := strings.CutSuffix(p, "*")
			return p == name || any && strings.HasPrefix(name, prefix)
		}) {
			return fmt.Errorf("forbidden sysctl: %q not allowlisted", name)
		}
		space := sysctlSpace(name)
		if space == "net" && pod.Spec.HostNetwork || space == "ipc" && pod.Spec.HostIPC {
			return fmt.Errorf("forbidden sysctl: %q not allowed with host %s enabled", name, space)
		}
	}
	return nil
}

package spec

import (
	"fmt"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
)

// ContainerConfig returns what the runtime shall run for in.
func ContainerConfig(in *Input) (*runtimeapi.ContainerConfig, error) {
	c := in.Container
	if err := verifyNonRoot(in); err != nil {
		return nil, err
	}
	sec, err := securityContext(in)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, e := range in.Env {
		env[e.Key] = string(e.Value)
	}
	lookup := func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		return "$(" + name + ")"
	}
	out := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(in.Restarts)},
		Image:       &runtimeapi.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, lookup),
		Args:        expandAll(c.Args, lookup),
		WorkingDir:  c.WorkingDir,
		Envs:        in.Env,
		Mounts:      in.Mounts,
		Devices:     in.Devices,
		Labels:      cri.ContainerLabels(in.Pod, c.Name),
		Annotations: cri.ContainerAnnotations(in.Pod, c, in.Restarts),
		LogPath:     in.LogPath,
		Stdin:       c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: Resources(in), SecurityContext: sec},
	}
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		out.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value[string(*l.StopSignal)])
	}
	return out, nil
}

func expandAll(in []string, lookup func(string) string) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		out = append(out, Expand(s, lookup))
	}
	return out
}

// verifyNonRoot refuses containers that must not run as root and would.
func verifyNonRoot(in *Input) error {
	nonRoot, user := effectiveNonRoot(in.Pod, in.Container)
	if !nonRoot {
		return nil
	}
	if user != nil {
		if *user == 0 {
			return configErrorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", podFormat(in.Pod), in.Container.Name)
		}
		return nil
	}
	switch u := in.ImageUser; {
	case u == nil:
	case u.Uid != nil && u.Uid.Value == 0:
		return configErrorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", podFormat(in.Pod), in.Container.Name)
	case u.Uid == nil && u.Username != "":
		return configErrorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)", u.Username, podFormat(in.Pod), in.Container.Name)
	case u.Uid == nil:
		return configErrorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", podFormat(in.Pod), in.Container.Name)
	}
	return nil
}

func podFormat(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

func effectiveNonRoot(pod *corev1.Pod, c *corev1.Container) (bool, *int64) {
	var nonRoot *bool
	var user *int64
	if p := pod.Spec.SecurityContext; p != nil {
		nonRoot, user = p.RunAsNonRoot, p.RunAsUser
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsNonRoot != nil {
			nonRoot = s.RunAsNonRoot
		}
		if s.RunAsUser != nil {
			user = s.RunAsUser
		}
	}
	return nonRoot != nil && *nonRoot, user
}

// maskedPaths and readonlyPaths hide what a container must not see of the
// kernel, unless it is privileged or asked for an unmasked /proc.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func securityContext(in *Input) (*runtimeapi.LinuxContainerSecurityContext, error) {
	pod, c := in.Pod, in.Container
	s := c.SecurityContext
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		Privileged:       s.Privileged != nil && *s.Privileged,
		ReadonlyRootfs:   s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem,
		NamespaceOptions: namespaces(pod),
	}
	if in.Target != "" {
		out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, in.Target
	}
	seccomp, err := seccompProfile(in, s, p, out.Privileged)
	if err != nil {
		return nil, err
	}
	out.Seccomp = seccomp
	if s.ProcMount == nil || *s.ProcMount == corev1.DefaultProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths(), readonlyPaths()
	}
	if out.Privileged {
		out.MaskedPaths, out.ReadonlyPaths = nil, nil
	}
	if cp := s.Capabilities; cp != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, a := range cp.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(a))
		}
		for _, d := range cp.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(d))
		}
	}
	user, group := p.RunAsUser, p.RunAsGroup
	if s.RunAsUser != nil {
		user = s.RunAsUser
	}
	if s.RunAsGroup != nil {
		group = s.RunAsGroup
	}
	if user != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
	} else if in.ImageUser != nil {
		if in.ImageUser.Uid != nil {
			out.RunAsUser = &runtimeapi.Int64Value{Value: in.ImageUser.Uid.Value}
		} else {
			out.RunAsUsername = in.ImageUser.Username
		}
	}
	if group != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *group}
	}
	out.SupplementalGroups = groups(p)
	if p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
	}
	// Privileged containers and CAP_SYS_ADMIN may always gain privileges.
	out.NoNewPrivs = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation && !out.Privileged
	return out, nil
}

func groups(p *corev1.PodSecurityContext) []int64 {
	out := append([]int64(nil), p.SupplementalGroups...)
	if p.FSGroup != nil {
		out = append(out, *p.FSGroup)
	}
	return out
}

func seccompProfile(in *Input, s *corev1.SecurityContext, p *corev1.PodSecurityContext, privileged bool) (*runtimeapi.SecurityProfile, error) {
	prof := p.SeccompProfile
	if s.SeccompProfile != nil {
		prof = s.SeccompProfile
	}
	unconfined := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	if privileged {
		return unconfined, nil
	}
	if prof == nil {
		if in.Node.SeccompByDefault {
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
		}
		return unconfined, nil
	}
	switch prof.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.SeccompProfileTypeLocalhost:
		if prof.LocalhostProfile == nil || *prof.LocalhostProfile == "" {
			return nil, configErrorf("localhostProfile must be set if seccompProfile type is Localhost.")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(in.Node.SeccompRoot, filepath.FromSlash("/"+*prof.LocalhostProfile)),
		}, nil
	}
	return unconfined, nil
}

// namespaces says which namespaces a pod's containers share, and with whom.
func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// Limits of the kernel's scheduler and the weights the API's quantities become.
const (
	minShares    = 2
	maxShares    = 262144
	quotaPeriod  = 100000 // µs
	minQuota     = 1000   // µs
	sharesPerCPU = 1024
)

// Shares is the CPU weight of milli thousandths of a CPU.
func Shares(milli int64) int64 {
	if milli == 0 {
		return minShares
	}
	return min(max(milli*sharesPerCPU/1000, minShares), maxShares)
}

// Quota is the CPU time per period of milli thousandths of a CPU; 0 is no limit.
func Quota(milli int64) (quota, period int64) {
	if milli == 0 {
		return 0, quotaPeriod
	}
	return max(milli*quotaPeriod/1000, minQuota), quotaPeriod
}

// Resources returns the container's limits in the kernel's terms.
func Resources(in *Input) *runtimeapi.LinuxContainerResources {
	r := in.Container.Resources
	request, limit, memory := r.Requests.Cpu().MilliValue(), r.Limits.Cpu().MilliValue(), r.Limits.Memory().Value()
	if _, ok := r.Requests[corev1.ResourceCPU]; !ok {
		request = limit
	}
	if whole := in.Pod.Spec.Resources; whole != nil { // a limit that the container lacks is its pod's
		if limit == 0 {
			limit = whole.Limits.Cpu().MilliValue()
		}
		if memory == 0 {
			memory = whole.Limits.Memory().Value()
		}
	}
	out := &runtimeapi.LinuxContainerResources{CpuShares: Shares(request), OomScoreAdj: oomScore(in)}
	if in.Node.CPUQuota {
		if q, period := Quota(limit); q != 0 {
			out.CpuQuota, out.CpuPeriod = q, period
		}
	}
	if memory > 0 {
		out.MemoryLimitInBytes = memory
	}
	if in.Node.CgroupV2 {
		// Without this a process that is OOM-killed could leave its container half alive.
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return out
}

// oomScore ranks the container for the kernel's OOM killer: the less it uses of
// what it asked for, the safer it is. Where scores may not be lowered, the
// safest is no better than an ordinary process.
func oomScore(in *Input) int64 {
	score := rank(in)
	if !in.Node.MaxOOMAdjust {
		return max(score, 0)
	}
	return score
}

func rank(in *Input) int64 {
	if p := in.Pod.Spec.Priority; p != nil && *p >= 2_000_000_000 && in.Pod.Spec.PriorityClassName == "system-node-critical" ||
		in.Static && in.Pod.Spec.PriorityClassName == "system-node-critical" {
		return -997
	}
	switch in.QOS {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	if in.MemoryCapacity == 0 {
		return 999
	}
	score := 1000 - 1000*in.Container.Resources.Requests.Memory().Value()/in.MemoryCapacity
	return min(max(score, 3), 999)
}

// LogPath is where a container's log lies in its sandbox's log directory.
func LogPath(container string, restarts int) string {
	return filepath.Join(container, strconv.Itoa(restarts)+".log")
}

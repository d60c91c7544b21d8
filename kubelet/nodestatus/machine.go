package nodestatus

import (
	"bufio"
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func readCapacity(cfg Config) corev1.ResourceList {
	out := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memTotal(), resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(int64(cfg.MaxPods), resource.DecimalSI),
		"hugepages-1Gi":       resource.MustParse("0"),
		"hugepages-2Mi":       resource.MustParse("0"),
	}
	var fs unix.Statfs_t
	if unix.Statfs(cfg.Root, &fs) == nil || unix.Statfs("/", &fs) == nil {
		out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI)
	}
	for k, v := range cfg.Capacity {
		out[k] = v
	}
	return out
}

func memTotal() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(w[1], 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

func (m *Manager) info(ctx context.Context) corev1.NodeSystemInfo {
	out := corev1.NodeSystemInfo{
		KubeletVersion: m.cfg.Version, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
		MachineID: line("/etc/machine-id"), SystemUUID: line("/sys/class/dmi/id/product_uuid"), BootID: line("/proc/sys/kernel/random/boot_id"),
		OSImage: osImage(),
	}
	if out.SystemUUID == "" {
		out.SystemUUID = out.MachineID
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		out.KernelVersion = unix.ByteSliceToString(u.Release[:])
	}
	if v, err := m.d.Runtime.Version(ctx, ""); err == nil {
		out.ContainerRuntimeVersion = v.RuntimeName + "://" + v.RuntimeVersion
	}
	return out
}

func line(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osImage() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

package kubelet

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/evict"
)

// containerStats returns what the runtime measures, by pod.
func (k *Kubelet) containerStats(ctx context.Context) map[string][]*runtimeapi.ContainerStats {
	out := map[string][]*runtimeapi.ContainerStats{}
	list, err := k.deps.Runtime.ListContainerStats(ctx, nil)
	if err != nil {
		k.log.Warn("the runtime does not tell of its containers", "err", err)
		return out
	}
	for _, s := range list {
		uid := s.GetAttributes().GetLabels()[cri.PodUIDLabel]
		out[uid] = append(out[uid], s)
	}
	return out
}

// usage measures what a pod uses.
func (k *Kubelet) usage(pod *corev1.Pod, stats map[string][]*runtimeapi.ContainerStats) evict.Usage {
	u := evict.Usage{Volumes: map[string]int64{}, Containers: map[string]evict.ContainerUsage{}}
	for _, s := range stats[string(pod.UID)] {
		name := s.GetAttributes().GetLabels()[cri.ContainerNameLabel]
		c := evict.ContainerUsage{
			Memory: int64(s.GetMemory().GetWorkingSetBytes().GetValue()), Rootfs: int64(s.GetWritableLayer().GetUsedBytes().GetValue()),
		}
		c.Logs, _ = du(filepath.Join(k.podLogDir(pod), name))
		u.Containers[name] = c
		u.Memory += c.Memory
		u.Disk += c.Rootfs + c.Logs
		u.Inodes += int64(s.GetWritableLayer().GetInodesUsed().GetValue())
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil {
			continue
		}
		size, inodes := du(k.volumes.EmptyDir(pod.UID, v.Name))
		u.Volumes[v.Name] = size
		if v.EmptyDir.Medium == corev1.StorageMediumDefault {
			u.Disk += size
			u.Inodes += inodes
		}
	}
	return u
}

// du sums the disk space and the files below path. What goes meanwhile is left out.
func du(path string) (bytes, inodes int64) {
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Nlink > 1 && !d.IsDir() && seen[st.Ino] {
			return nil
		}
		seen[st.Ino] = true
		bytes += st.Blocks * 512
		inodes++
		return nil
	})
	return bytes, inodes
}

// availableMemory is what could be had without swapping. Where the node was
// given only a part of the computer it cannot have more than that.
func (c *Config) availableMemory() int64 {
	free := available()
	if m, ok := c.Capacity[corev1.ResourceMemory]; ok {
		free = min(free, m.Value())
	}
	return free
}

// available reads how much memory the kernel thinks can be had.
func available() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 1 << 62
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == "MemAvailable:" {
			if kb, err := strconv.ParseInt(w[1], 10, 64); err == nil {
				return kb << 10
			}
		}
	}
	return 1 << 62
}

// pids returns how many more processes there can be, and how many in all.
func pids() (left, limit int64) {
	limit = fileNumber("/proc/sys/kernel/pid_max")
	if n := fileNumber("/proc/sys/kernel/threads-max"); n > 0 && n < limit {
		limit = n
	}
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil || limit == 0 {
		return 0, 0
	}
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return 0, 0
	}
	_, all, _ := strings.Cut(f[3], "/")
	running, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return 0, 0
	}
	return limit - running, limit
}

func fileNumber(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

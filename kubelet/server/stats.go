package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

// Machine is what the node as a whole uses.
type Machine struct {
	CPU                     uint64 // nanoseconds, ever
	Memory, WorkingSet, Rss uint64
	Available               uint64
	Faults, MajorFaults     uint64
	Root                    string // whose filesystem is the node's
	Processes, MaxProcesses int64
}

// Disk is what a pod keeps on the node besides its containers' layers.
type Disk struct {
	Logs    map[string]Files // by container
	Volumes []Volume
	Own     Files // files that the agent makes for it
}

// Files are a tree's bytes and inodes.
type Files struct{ Bytes, Inodes int64 }

// Volume is one volume of a pod. Path is set for one with a filesystem of its own.
type Volume struct {
	Name, Claim string
	Files       Files
	Path        string
	Ephemeral   bool // counts as the pod's local storage
}

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	n := v.Value
	return &n
}

func at(ns int64) metav1.Time { return metav1.Time{Time: time.Unix(0, ns)} }

func cpuOf(c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	return &stats.CPUStats{Time: at(c.Timestamp), UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func memoryOf(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{
		Time: at(m.Timestamp), WorkingSetBytes: value(m.WorkingSetBytes), AvailableBytes: value(m.AvailableBytes), UsageBytes: value(m.UsageBytes),
		RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults),
	}
}

// collect makes the summary of the node and its pods. onlyCPUAndMemory leaves
// out what must be looked for on the disk.
func (s *Server) collect(ctx context.Context, onlyCPUAndMemory bool) (*stats.Summary, error) {
	now := metav1.Time{Time: clock.Now()}
	boxes, err := s.d.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := &stats.Summary{Pods: []stats.PodStats{}}
	images := s.imageFS(ctx, now)
	pods := map[string]*corev1.Pod{}
	for _, p := range s.d.Host.Pods() {
		pods[string(p.UID)] = p
	}
	var nano uint64
	for _, b := range boxes {
		p := podStats(b)
		pod := pods[p.PodRef.UID]
		if pod != nil && pod.Status.StartTime != nil {
			p.StartTime = *pod.Status.StartTime
		}
		if pod != nil && !onlyCPUAndMemory {
			addDisk(&p, s.d.Host.Disk(ctx, pod), images, now)
		}
		if p.CPU != nil && p.CPU.UsageNanoCores != nil {
			nano += *p.CPU.UsageNanoCores
		}
		out.Pods = append(out.Pods, p)
	}
	out.Node = s.nodeStats(nano, now)
	if images != nil {
		out.Node.Runtime = &stats.RuntimeStats{ImageFs: images, ContainerFs: images}
	}
	return out, nil
}

// podStats turns the runtime's figures of one pod into the summary's.
func podStats(b *runtimeapi.PodSandboxStats) stats.PodStats {
	l := b.GetAttributes().GetLabels()
	p := stats.PodStats{
		PodRef: stats.PodReference{Name: l[cri.PodNameLabel], Namespace: l[cri.PodNamespaceLabel], UID: l[cri.PodUIDLabel]},
		CPU:    cpuOf(b.GetLinux().GetCpu()), Memory: memoryOf(b.GetLinux().GetMemory()), Containers: []stats.ContainerStats{},
	}
	if n := b.GetLinux().GetNetwork(); n != nil {
		p.Network = &stats.NetworkStats{Time: at(n.Timestamp)}
		if i := n.DefaultInterface; i != nil {
			p.Network.InterfaceStats = interfaceOf(i)
			p.Network.Interfaces = append(p.Network.Interfaces, p.Network.InterfaceStats)
		}
		for _, i := range n.Interfaces {
			p.Network.Interfaces = append(p.Network.Interfaces, interfaceOf(i))
		}
	}
	if c := b.GetLinux().GetProcess(); c != nil {
		p.ProcessStats = &stats.ProcessStats{ProcessCount: value(c.ProcessCount)}
	}
	newest := map[string]uint32{}
	for _, c := range b.GetLinux().GetContainers() {
		name, attempt := c.GetAttributes().GetLabels()[cri.ContainerNameLabel], c.GetAttributes().GetMetadata().GetAttempt()
		old := slices.IndexFunc(p.Containers, func(x stats.ContainerStats) bool { return x.Name == name })
		if old >= 0 && newest[name] >= attempt {
			continue // an earlier run of the same container
		}
		one := stats.ContainerStats{Name: name, CPU: cpuOf(c.Cpu), Memory: memoryOf(c.Memory)}
		if w := c.WritableLayer; w != nil {
			one.Rootfs = &stats.FsStats{Time: at(w.Timestamp), UsedBytes: value(w.UsedBytes), InodesUsed: value(w.InodesUsed)}
		}
		if newest[name] = attempt; old >= 0 {
			p.Containers[old] = one
		} else {
			p.Containers = append(p.Containers, one)
		}
	}
	return p
}

// addDisk adds logs, volumes and the pod's local storage in all.
func addDisk(p *stats.PodStats, d Disk, fs *stats.FsStats, now metav1.Time) {
	used, inodes := uint64(d.Own.Bytes), uint64(d.Own.Inodes)
	for i := range p.Containers {
		c := &p.Containers[i]
		c.StartTime = p.StartTime
		f := d.Logs[c.Name]
		c.Logs = within(fs, f, now)
		used, inodes = used+uint64(f.Bytes), inodes+uint64(f.Inodes)
		if c.Rootfs != nil && fs != nil {
			c.Rootfs.CapacityBytes, c.Rootfs.AvailableBytes, c.Rootfs.Inodes, c.Rootfs.InodesFree = fs.CapacityBytes, fs.AvailableBytes, fs.Inodes, fs.InodesFree
		}
		if c.Rootfs != nil && c.Rootfs.UsedBytes != nil {
			used += *c.Rootfs.UsedBytes
		}
	}
	for _, v := range d.Volumes {
		one := stats.VolumeStats{Name: v.Name}
		if v.Claim != "" {
			one.PVCRef = &stats.PVCReference{Name: v.Claim, Namespace: p.PodRef.Namespace}
		}
		if own := filesystem(v.Path, now); v.Path != "" && own != nil {
			one.FsStats = *own
		} else if shared := within(fs, v.Files, now); shared != nil {
			one.FsStats = *shared
		}
		if v.Ephemeral {
			used, inodes = used+uint64(v.Files.Bytes), inodes+uint64(v.Files.Inodes)
		}
		p.VolumeStats = append(p.VolumeStats, one)
	}
	p.EphemeralStorage = within(fs, Files{int64(used), int64(inodes)}, now)
}

// within is what files use of a filesystem.
func within(fs *stats.FsStats, f Files, now metav1.Time) *stats.FsStats {
	used, inodes := uint64(f.Bytes), uint64(f.Inodes)
	out := &stats.FsStats{Time: now, UsedBytes: &used, InodesUsed: &inodes}
	if fs != nil {
		out.CapacityBytes, out.AvailableBytes, out.Inodes, out.InodesFree = fs.CapacityBytes, fs.AvailableBytes, fs.Inodes, fs.InodesFree
	}
	return out
}

func (s *Server) nodeStats(nano uint64, now metav1.Time) stats.NodeStats {
	m := s.d.Host.Machine()
	n := stats.NodeStats{NodeName: s.d.Host.NodeName(), StartTime: metav1.Time{Time: s.started}}
	n.CPU = &stats.CPUStats{Time: now, UsageNanoCores: s.rate(m.CPU, nano, now.Time), UsageCoreNanoSeconds: &m.CPU}
	n.Memory = &stats.MemoryStats{
		Time: now, WorkingSetBytes: &m.WorkingSet, UsageBytes: &m.Memory, RSSBytes: &m.Rss, AvailableBytes: &m.Available,
		PageFaults: &m.Faults, MajorPageFaults: &m.MajorFaults,
	}
	n.Fs = filesystem(m.Root, now)
	if m.MaxProcesses > 0 {
		n.Rlimit = &stats.RlimitStats{Time: now, MaxPID: &m.MaxProcesses, NumOfRunningProcesses: &m.Processes}
	}
	return n
}

// rate is the node's use of its processors since somebody last asked; before
// that it is the pods' alone.
func (s *Server) rate(cpu, pods uint64, now time.Time) *uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, when := s.lastCPU, s.lastAsked
	if when.IsZero() || now.Sub(when) > time.Second {
		s.lastCPU, s.lastAsked = cpu, now
	}
	if when.IsZero() || cpu < last || now.Sub(when) <= 0 {
		return &pods
	}
	r := uint64(float64(cpu-last) / now.Sub(when).Seconds())
	return &r
}

// imageFS is the filesystem of images and containers.
func (s *Server) imageFS(ctx context.Context, now metav1.Time) *stats.FsStats {
	if s.d.Images == nil {
		return nil
	}
	info, err := s.d.Images.ImageFsInfo(ctx)
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return nil
	}
	used := info.ImageFilesystems[0]
	out := filesystem(used.GetFsId().GetMountpoint(), now)
	if out != nil {
		out.UsedBytes, out.InodesUsed = value(used.UsedBytes), value(used.InodesUsed)
	}
	return out
}

func filesystem(path string, now metav1.Time) *stats.FsStats {
	var f unix.Statfs_t
	if path == "" || unix.Statfs(path, &f) != nil {
		return nil
	}
	size := uint64(f.Bsize)
	capacity, avail, used := f.Blocks*size, f.Bavail*size, (f.Blocks-f.Bfree)*size
	inodes, free, inUse := f.Files, f.Ffree, f.Files-f.Ffree
	return &stats.FsStats{Time: now, CapacityBytes: &capacity, AvailableBytes: &avail, UsedBytes: &used, Inodes: &inodes, InodesFree: &free, InodesUsed: &inUse}
}

func interfaceOf(i *runtimeapi.NetworkInterfaceUsage) stats.InterfaceStats {
	return stats.InterfaceStats{Name: i.Name, RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors), TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors)}
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	sum, err := s.collect(r.Context(), yes(r.URL.Query(), "only_cpu_and_memory"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, sum)
}

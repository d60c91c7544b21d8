package server

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

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

func fsOf(f *runtimeapi.FilesystemUsage) *stats.FsStats {
	if f == nil {
		return nil
	}
	return &stats.FsStats{Time: at(f.Timestamp), UsedBytes: value(f.UsedBytes), InodesUsed: value(f.InodesUsed)}
}

// Collect makes the summary of the node and its pods from what the runtime measures.
func (s *Server) collect(ctx context.Context) (*stats.Summary, error) {
	out := &stats.Summary{Node: stats.NodeStats{NodeName: s.d.Host.NodeName()}, Pods: []stats.PodStats{}}
	boxes, err := s.d.Runtime.ListPodSandboxStats(ctx, nil)
	if err != nil {
		return nil, err
	}
	node := struct{ cpu, nano, work uint64 }{}
	for _, b := range boxes {
		l := b.GetAttributes().GetLabels()
		p := stats.PodStats{
			PodRef: stats.PodReference{Name: l[cri.PodNameLabel], Namespace: l[cri.PodNamespaceLabel], UID: l[cri.PodUIDLabel]},
			CPU:    cpuOf(b.GetLinux().GetCpu()), Memory: memoryOf(b.GetLinux().GetMemory()), Containers: []stats.ContainerStats{},
		}
		if n := b.GetLinux().GetNetwork(); n != nil {
			p.Network = &stats.NetworkStats{Time: at(n.Timestamp)}
			if i := n.DefaultInterface; i != nil {
				p.Network.InterfaceStats = interfaceOf(i)
			}
			for _, i := range n.Interfaces {
				p.Network.Interfaces = append(p.Network.Interfaces, interfaceOf(i))
			}
		}
		if c := b.GetLinux().GetProcess(); c != nil {
			p.ProcessStats = &stats.ProcessStats{ProcessCount: value(c.ProcessCount)}
		}
		for _, c := range b.GetLinux().GetContainers() {
			cl := c.GetAttributes().GetLabels()
			p.Containers = append(p.Containers, stats.ContainerStats{
				Name: cl[cri.ContainerNameLabel], CPU: cpuOf(c.Cpu), Memory: memoryOf(c.Memory), Rootfs: fsOf(c.WritableLayer),
			})
		}
		if p.CPU != nil && p.CPU.UsageCoreNanoSeconds != nil {
			node.cpu += *p.CPU.UsageCoreNanoSeconds
		}
		if p.CPU != nil && p.CPU.UsageNanoCores != nil {
			node.nano += *p.CPU.UsageNanoCores
		}
		if p.Memory != nil && p.Memory.WorkingSetBytes != nil {
			node.work += *p.Memory.WorkingSetBytes
		}
		for _, pod := range s.d.Host.Pods() {
			if string(pod.UID) == p.PodRef.UID && pod.Status.StartTime != nil {
				p.StartTime = *pod.Status.StartTime
			}
		}
		out.Pods = append(out.Pods, p)
	}
	now := metav1.Time{Time: clock.Now()}
	out.Node.CPU = &stats.CPUStats{Time: now, UsageNanoCores: &node.nano, UsageCoreNanoSeconds: &node.cpu}
	out.Node.Memory = &stats.MemoryStats{Time: now, WorkingSetBytes: &node.work, UsageBytes: &node.work}
	out.Node.Fs = filesystem("/", now)
	return out, nil
}

func filesystem(path string, now metav1.Time) *stats.FsStats {
	var f unix.Statfs_t
	if unix.Statfs(path, &f) != nil {
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
	sum, err := s.collect(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, sum)
}

// resourceMetrics is what metrics-server reads.
type resourceMetrics struct{ s *Server }

// Describe says nothing: the metrics depend on what runs.
func (resourceMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads the runtime's figures.
func (m resourceMetrics) Collect(ch chan<- prometheus.Metric) {
	sum, err := m.s.collect(context.Background())
	failed := 0.0
	if err != nil {
		failed = 1
	}
	emit := func(name, help string, t prometheus.ValueType, v *uint64, div float64, when metav1.Time, labels []string, values ...string) {
		if v == nil {
			return
		}
		x := prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, labels, nil), t, float64(*v)/div, values...)
		ch <- prometheus.NewMetricWithTimestamp(when.Time, x)
	}
	ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", nil, nil), prometheus.GaugeValue, failed)
	if err != nil {
		return
	}
	n := sum.Node
	emit("node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds", prometheus.CounterValue, n.CPU.UsageCoreNanoSeconds, 1e9, n.CPU.Time, nil)
	emit("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes", prometheus.GaugeValue, n.Memory.WorkingSetBytes, 1, n.Memory.Time, nil)
	for _, p := range sum.Pods {
		pl := []string{"pod", "namespace"}
		if p.CPU != nil {
			emit("pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", prometheus.CounterValue, p.CPU.UsageCoreNanoSeconds, 1e9, p.CPU.Time, pl, p.PodRef.Name, p.PodRef.Namespace)
		}
		if p.Memory != nil {
			emit("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", prometheus.GaugeValue, p.Memory.WorkingSetBytes, 1, p.Memory.Time, pl, p.PodRef.Name, p.PodRef.Namespace)
		}
		for _, c := range p.Containers {
			cl := []string{"container", "pod", "namespace"}
			if c.CPU != nil {
				emit("container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", prometheus.CounterValue, c.CPU.UsageCoreNanoSeconds, 1e9, c.CPU.Time, cl, c.Name, p.PodRef.Name, p.PodRef.Namespace)
			}
			if c.Memory != nil {
				emit("container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", prometheus.GaugeValue, c.Memory.WorkingSetBytes, 1, c.Memory.Time, cl, c.Name, p.PodRef.Name, p.PodRef.Namespace)
			}
		}
	}
}

// cadvisorMetrics are the basic container metrics under cAdvisor's names.
type cadvisorMetrics struct{ s *Server }

// Describe says nothing: the metrics depend on what runs.
func (cadvisorMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads the runtime's figures.
func (m cadvisorMetrics) Collect(ch chan<- prometheus.Metric) {
	sum, err := m.s.collect(context.Background())
	if err != nil {
		return
	}
	labels := []string{"container", "pod", "namespace"}
	emit := func(name, help string, t prometheus.ValueType, v *uint64, div float64, values ...string) {
		if v != nil {
			ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, labels, nil), t, float64(*v)/div, values...)
		}
	}
	for _, p := range sum.Pods {
		for _, c := range p.Containers {
			id := []string{c.Name, p.PodRef.Name, p.PodRef.Namespace}
			if c.CPU != nil {
				emit("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", prometheus.CounterValue, c.CPU.UsageCoreNanoSeconds, 1e9, id...)
			}
			if c.Memory != nil {
				emit("container_memory_working_set_bytes", "Current working set in bytes.", prometheus.GaugeValue, c.Memory.WorkingSetBytes, 1, id...)
				emit("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", prometheus.GaugeValue, c.Memory.UsageBytes, 1, id...)
				emit("container_memory_rss", "Size of RSS in bytes.", prometheus.GaugeValue, c.Memory.RSSBytes, 1, id...)
			}
			if c.Rootfs != nil {
				emit("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", prometheus.GaugeValue, c.Rootfs.UsedBytes, 1, id...)
			}
		}
		if p.Network != nil {
			id := []string{"", p.PodRef.Name, p.PodRef.Namespace}
			emit("container_network_receive_bytes_total", "Cumulative count of bytes received", prometheus.CounterValue, p.Network.RxBytes, 1, id...)
			emit("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", prometheus.CounterValue, p.Network.TxBytes, 1, id...)
		}
	}
}

package server

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// emitter sends one metric; a nil value is not sent.
type emitter struct {
	ch     chan<- prometheus.Metric
	labels []string
}

func (e emitter) emit(name, help string, t prometheus.ValueType, v *uint64, div float64, when metav1.Time, values ...string) {
	if v == nil {
		return
	}
	x := prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, e.labels, nil), t, float64(*v)/div, values...)
	if !when.IsZero() {
		x = prometheus.NewMetricWithTimestamp(when.Time, x)
	}
	e.ch <- x
}

func (e emitter) counter(name, help string, v *uint64, div float64, when metav1.Time, values ...string) {
	e.emit(name, help, prometheus.CounterValue, v, div, when, values...)
}

func (e emitter) gauge(name, help string, v *uint64, when metav1.Time, values ...string) {
	e.emit(name, help, prometheus.GaugeValue, v, 1, when, values...)
}

// resourceMetrics is what metrics-server reads.
type resourceMetrics struct{ s *Server }

// Describe says nothing: the metrics depend on what runs.
func (resourceMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads the runtime's figures.
func (m resourceMetrics) Collect(ch chan<- prometheus.Metric) {
	sum, err := m.s.collect(context.Background(), true)
	failed := uint64(0)
	if err != nil {
		failed = 1
	}
	node := emitter{ch, nil}
	for _, name := range []string{"resource_scrape_error", "scrape_error"} { // the second is the name of old
		node.gauge(name, "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", &failed, metav1.Time{})
	}
	if err != nil {
		return
	}
	n := sum.Node
	node.counter("node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds", n.CPU.UsageCoreNanoSeconds, 1e9, n.CPU.Time)
	node.gauge("node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes", n.Memory.WorkingSetBytes, n.Memory.Time)
	pod, container := emitter{ch, []string{"pod", "namespace"}}, emitter{ch, []string{"container", "pod", "namespace"}}
	for _, p := range sum.Pods {
		id := []string{p.PodRef.Name, p.PodRef.Namespace}
		if p.CPU != nil {
			pod.counter("pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", p.CPU.UsageCoreNanoSeconds, 1e9, p.CPU.Time, id...)
		}
		if p.Memory != nil {
			pod.gauge("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", p.Memory.WorkingSetBytes, p.Memory.Time, id...)
		}
		for _, c := range p.Containers {
			id := append([]string{c.Name}, id...)
			if c.CPU != nil {
				container.counter("container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", c.CPU.UsageCoreNanoSeconds, 1e9, c.CPU.Time, id...)
			}
			if c.Memory != nil {
				container.gauge("container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", c.Memory.WorkingSetBytes, c.Memory.Time, id...)
			}
			if !p.StartTime.IsZero() {
				start := uint64(p.StartTime.Unix())
				container.gauge("container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", &start, metav1.Time{}, id...)
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
	sum, err := m.s.collect(context.Background(), false)
	if err != nil {
		return
	}
	images, limits := map[string]string{}, map[string]corev1.ResourceRequirements{}
	for _, p := range m.s.d.Host.Pods() {
		for _, c := range append(append([]corev1.Container(nil), p.Spec.InitContainers...), p.Spec.Containers...) {
			key := string(p.UID) + "/" + c.Name
			images[key], limits[key] = c.Image, c.Resources
		}
	}
	// The whole machine is the root control group.
	e := emitter{ch, []string{"container", "id", "image", "name", "namespace", "pod"}}
	usage(e, sum.Node.CPU, sum.Node.Memory, "", "/", "", "", "", "")
	for _, p := range sum.Pods {
		group := "/kubepods/pod" + p.PodRef.UID
		usage(e, p.CPU, p.Memory, "", group, "", "", p.PodRef.Namespace, p.PodRef.Name)
		for _, c := range p.Containers {
			key := p.PodRef.UID + "/" + c.Name
			id := []string{c.Name, group + "/" + c.Name, images[key], c.Name, p.PodRef.Namespace, p.PodRef.Name}
			usage(e, c.CPU, c.Memory, id...)
			if c.Rootfs != nil {
				e.gauge("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", c.Rootfs.UsedBytes, metav1.Time{}, id...)
				e.gauge("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", c.Rootfs.CapacityBytes, metav1.Time{}, id...)
				e.gauge("container_fs_inodes_total", "Number of Inodes", c.Rootfs.Inodes, metav1.Time{}, id...)
				e.gauge("container_fs_inodes_free", "Number of available Inodes", c.Rootfs.InodesFree, metav1.Time{}, id...)
			}
			spec(e, limits[key], id...)
			if !c.StartTime.IsZero() {
				start := uint64(c.StartTime.Unix())
				e.gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", &start, metav1.Time{}, id...)
			}
		}
		network(ch, &p)
	}
	cores := emitter{ch, nil}
	count := uint64(m.s.d.Host.Cores())
	cores.gauge("machine_cpu_cores", "Number of logical CPU cores.", &count, metav1.Time{})
}

// usage emits a control group's use of processors and memory.
func usage(e emitter, cpu *stats.CPUStats, memory *stats.MemoryStats, id ...string) {
	if cpu != nil {
		e.counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", cpu.UsageCoreNanoSeconds, 1e9, cpu.Time, id...)
	}
	if memory != nil {
		e.gauge("container_memory_working_set_bytes", "Current working set in bytes.", memory.WorkingSetBytes, memory.Time, id...)
		e.gauge("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", memory.UsageBytes, memory.Time, id...)
		e.gauge("container_memory_rss", "Size of RSS in bytes.", memory.RSSBytes, memory.Time, id...)
	}
}

// spec emits what a container may use.
func spec(e emitter, r corev1.ResourceRequirements, id ...string) {
	if m := uint64(r.Limits.Memory().Value()); m > 0 {
		e.gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", &m, metav1.Time{}, id...)
	}
	period, shares := uint64(100000), uint64(max(r.Requests.Cpu().MilliValue()*1024/1000, 2))
	e.gauge("container_spec_cpu_period", "CPU period of the container.", &period, metav1.Time{}, id...)
	e.gauge("container_spec_cpu_shares", "CPU share of the container.", &shares, metav1.Time{}, id...)
	if q := uint64(r.Limits.Cpu().MilliValue() * 100); q > 0 {
		e.gauge("container_spec_cpu_quota", "CPU quota of the container.", &q, metav1.Time{}, id...)
	}
}

// network emits what passed a pod's interfaces.
func network(ch chan<- prometheus.Metric, p *stats.PodStats) {
	if p.Network == nil {
		return
	}
	e := emitter{ch, []string{"container", "id", "image", "interface", "name", "namespace", "pod"}}
	for _, i := range p.Network.Interfaces {
		id := []string{"", "/kubepods/pod" + p.PodRef.UID, "", i.Name, "", p.PodRef.Namespace, p.PodRef.Name}
		e.counter("container_network_receive_bytes_total", "Cumulative count of bytes received", i.RxBytes, 1, metav1.Time{}, id...)
		e.counter("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", i.RxErrors, 1, metav1.Time{}, id...)
		e.counter("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", i.TxBytes, 1, metav1.Time{}, id...)
		e.counter("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", i.TxErrors, 1, metav1.Time{}, id...)
	}
}

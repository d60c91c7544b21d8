package kubelet

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/probe"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// metrics are the agent's own, under upstream's names.
type metrics struct {
	podStart, podWorker, relist, relistInterval prometheus.ObserverVec
	startedPods, startedPodErrors               prometheus.Counter
	startedContainers, startedContainerErrors   *prometheus.CounterVec
	evictions                                   *prometheus.CounterVec
	preemptions                                 *prometheus.CounterVec
	probes                                      *prometheus.CounterVec
	runtimeOperations, runtimeErrors            *prometheus.CounterVec
}

// newMetrics registers the metrics with r; what is registered already is used.
func newMetrics(r prometheus.Registerer, node string) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	wide := prometheus.ExponentialBuckets(0.05, 2, 14)
	histogram := func(name, help string, labels ...string) prometheus.ObserverVec {
		return register(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "kubelet", Name: name, Help: help, Buckets: wide}, labels))
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "kubelet", Name: name, Help: help}, labels))
	}
	m := &metrics{
		podStart:               histogram("pod_start_duration_seconds", "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run"),
		podWorker:              histogram("pod_worker_duration_seconds", "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync", "operation_type"),
		relist:                 histogram("pleg_relist_duration_seconds", "Duration in seconds for relisting pods in PLEG."),
		relistInterval:         histogram("pleg_relist_interval_seconds", "Interval in seconds between relisting in PLEG."),
		startedContainers:      counter("started_containers_total", "Cumulative number of containers started", "container_type"),
		startedContainerErrors: counter("started_containers_errors_total", "Cumulative number of errors when starting containers", "container_type", "code"),
		evictions:              counter("evictions", "Cumulative number of pod evictions by eviction signal", "eviction_signal"),
		preemptions:            counter("preemptions", "Cumulative number of pod preemptions by preemption resource", "preemption_signal"),
		runtimeOperations:      counter("runtime_operations_total", "Cumulative number of runtime operations by operation type.", "operation_type"),
		runtimeErrors:          counter("runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type.", "operation_type"),
		startedPods:            counter("started_pods_total", "Cumulative number of pods started").WithLabelValues(),
		startedPodErrors:       counter("started_pods_errors_total", "Cumulative number of errors when starting pods").WithLabelValues(),
	}
	register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "kubelet", Name: "node_name", Help: "The node's name. The count is always 1."}, []string{"node"})).WithLabelValues(node).Set(1)
	// Probes are told apart at /metrics/probes, with all labels of their pods.
	m.probes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "prober_probe_total", Help: "Cumulative number of a liveness, readiness or startup probe for a container by result."},
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"})
	return m
}

// probeMetrics are served apart.
func (m *metrics) probeMetrics() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(m.probes)
	return r
}

// probed counts the result of a probe.
func (m *metrics) probed(t *probe.Target, kind string, r probe.Result) {
	result := map[probe.Result]string{probe.Success: "successful", probe.Warning: "successful", probe.Failure: "failed", probe.Unknown: "unknown"}[r]
	m.probes.WithLabelValues(kind, result, t.Container.Name, t.Pod.Name, t.Pod.Namespace, string(t.Pod.UID)).Inc()
}

func register[T prometheus.Collector](r prometheus.Registerer, c T) T {
	err := r.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if old, ok := there.ExistingCollector.(T); ok {
			return old
		}
	}
	return c
}

// started notes that a container of kind was started, or that it could not be.
func (m *metrics) started(k Kind, reason string) {
	kind := map[Kind]string{Init: "init_container", Main: "container", Ephemeral: "ephemeral_container"}[k]
	m.startedContainers.WithLabelValues(kind).Inc()
	if reason != "" {
		m.startedContainerErrors.WithLabelValues(kind, reason).Inc()
	}
}

// running tells how many pods and containers there are.
type running struct{ k *Kubelet }

// runningDescs are, in this order: pods, containers, active, desired, mirror and
// working pods.
func runningDescs() [6]*prometheus.Desc {
	return [6]*prometheus.Desc{
		prometheus.NewDesc("kubelet_running_pods", "Number of pods that have a running pod sandbox", nil, nil),
		prometheus.NewDesc("kubelet_running_containers", "Number of containers currently running", []string{"container_state"}, nil),
		prometheus.NewDesc("kubelet_active_pods", "The number of pods the kubelet considers active and which are being considered when admitting new pods.", []string{"static"}, nil),
		prometheus.NewDesc("kubelet_desired_pods", "The number of pods the kubelet is being instructed to run.", []string{"static"}, nil),
		prometheus.NewDesc("kubelet_mirror_pods", "The number of mirror pods the kubelet will try to create (one per admitted static pod)", nil, nil),
		prometheus.NewDesc("kubelet_working_pods", "Number of pods the kubelet is actually running, broken down by lifecycle phase.", []string{"lifecycle", "static"}, nil),
	}
}

// Describe lists the metrics.
func (running) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range runningDescs() {
		ch <- d
	}
}

// Collect counts.
func (r running) Collect(ch chan<- prometheus.Metric) {
	d := runningDescs()
	containers := map[string]float64{"running": 0}
	pods, mirrors := 0.0, 0.0
	active, desired := map[string]float64{"true": 0, "": 0}, map[string]float64{"true": 0, "": 0}
	working := map[[2]string]float64{}
	for _, w := range r.k.workers() {
		w.mu.Lock()
		pod, st, ending, over, static := w.pod, w.status, w.ending, w.over, ""
		if w.static {
			static = "true"
			mirrors++
		}
		w.mu.Unlock()
		desired[static]++
		if !ending && semantics.Active(pod) {
			active[static]++
		}
		phase := "sync"
		switch {
		case over:
			phase = "terminated"
		case ending:
			phase = "terminating"
		}
		working[[2]string{phase, static}]++
		if st == nil {
			continue
		}
		if c := semantics.Condition(st, corev1.PodReadyToStartContainers); c != nil && c.Status == corev1.ConditionTrue {
			pods++
		}
		for _, list := range [][]corev1.ContainerStatus{st.ContainerStatuses, st.InitContainerStatuses, st.EphemeralContainerStatuses} {
			for i := range list {
				switch s := list[i].State; {
				case s.Running != nil:
					containers["running"]++
				case s.Terminated != nil:
					containers["exited"]++
				}
			}
		}
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(d[0], pods)
	gauge(d[4], mirrors)
	for s, v := range containers {
		gauge(d[1], v, s)
	}
	for s, v := range active {
		gauge(d[2], v, s)
	}
	for s, v := range desired {
		gauge(d[3], v, s)
	}
	for k, v := range working {
		gauge(d[5], v, k[0], k[1])
	}
}

// timed observes how long something took.
func timed(o prometheus.Observer, begin time.Time) { o.Observe(clock.Since(begin).Seconds()) }

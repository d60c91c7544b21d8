package controller

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Metrics are the work queues' figures under upstream's names. Make them with
// NewMetrics; nil measures nothing.
type Metrics struct {
	registry  prometheus.Registerer
	adds      *prometheus.CounterVec
	retries   *prometheus.CounterVec
	waited    *prometheus.HistogramVec
	worked    *prometheus.HistogramVec
	depthOpts prometheus.GaugeOpts
}

// NewMetrics registers the figures with r.
func NewMetrics(r prometheus.Registerer) *Metrics {
	label := []string{"name"}
	buckets := prometheus.ExponentialBuckets(10e-9, 10, 12)
	m := &Metrics{
		registry: r,
		adds:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_adds_total", Help: "Total number of adds handled by workqueue"}, label),
		retries:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_retries_total", Help: "Total number of retries handled by workqueue"}, label),
		waited:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_queue_duration_seconds", Help: "How long in seconds an item stays in workqueue before being requested.", Buckets: buckets}, label),
		worked:   prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_work_duration_seconds", Help: "How long in seconds processing an item from workqueue takes.", Buckets: buckets}, label),
	}
	r.MustRegister(m.adds, m.retries, m.waited, m.worked)
	return m
}

// Histogram makes a figure of a loop's own; that of an earlier term of
// leadership goes on.
func (m *Metrics) Histogram(o prometheus.HistogramOpts) prometheus.Histogram {
	return register(m, prometheus.NewHistogram(o))
}

// Counters makes a loop's own counters by labels.
func (m *Metrics) Counters(o prometheus.CounterOpts, labels ...string) *prometheus.CounterVec {
	return register(m, prometheus.NewCounterVec(o, labels))
}

// Gauges makes a loop's own gauges by labels.
func (m *Metrics) Gauges(o prometheus.GaugeOpts, labels ...string) *prometheus.GaugeVec {
	return register(m, prometheus.NewGaugeVec(o, labels))
}

func register[C prometheus.Collector](m *Metrics, c C) C {
	if m == nil {
		return c
	}
	var known prometheus.AlreadyRegisteredError
	if err := m.registry.Register(c); errors.As(err, &known) {
		if old, ok := known.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

// meter measures one queue.
type meter struct {
	adds, retries  prometheus.Counter
	waited, worked prometheus.Observer

	mu    sync.Mutex
	since map[Key]time.Time
}

func (m *Metrics) meter(name string, depth func() int) *meter {
	if m == nil {
		return nil
	}
	g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "workqueue_depth", Help: "Current depth of workqueue", ConstLabels: prometheus.Labels{"name": name}},
		func() float64 { return float64(depth()) })
	if err := m.registry.Register(g); err != nil {
		// The queue of an earlier term of leadership: the new one replaces it.
		m.registry.Unregister(g)
		m.registry.MustRegister(g)
	}
	return &meter{adds: m.adds.WithLabelValues(name), retries: m.retries.WithLabelValues(name),
		waited: m.waited.WithLabelValues(name), worked: m.worked.WithLabelValues(name), since: map[Key]time.Time{}}
}

func (m *meter) added(k Key) {
	if m == nil {
		return
	}
	m.adds.Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.since[k]; !ok {
		m.since[k] = clock.Now()
	}
}

func (m *meter) begin(k Key) (done func()) {
	if m == nil {
		return func() {}
	}
	began := clock.Now()
	m.mu.Lock()
	if at, ok := m.since[k]; ok {
		m.waited.Observe(began.Sub(at).Seconds())
		delete(m.since, k)
	}
	m.mu.Unlock()
	return func() { m.worked.Observe(clock.Since(began).Seconds()) }
}

func (m *meter) retried() {
	if m != nil {
		m.retries.Inc()
	}
}

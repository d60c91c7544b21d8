package cache

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

// metrics have upstream's names where upstream has them.
type metrics struct {
	c          *Cache
	received   *prometheus.CounterVec
	dispatched *prometheus.CounterVec
	inits      *prometheus.CounterVec
	lists      *prometheus.CounterVec
	wait       prometheus.Histogram
	duration   *prometheus.HistogramVec
	requests   *prometheus.CounterVec
	errors     *prometheus.CounterVec
	objects    *prometheus.Desc
	oldObjects *prometheus.Desc
	version    *prometheus.Desc
	capacity   *prometheus.Desc
}

// spaceMetrics are those of one resource, looked up once.
type spaceMetrics struct {
	m                                            *metrics
	group, resource                              string
	received, dispatched, initializations, lists prometheus.Counter
	duration                                     map[string]prometheus.Observer
	requests                                     map[string]prometheus.Counter
}

func newMetrics(c *Cache) (*metrics, error) {
	labels := []string{"group", "resource"}
	ops := []string{"operation", "group", "resource"}
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		c:          c,
		received:   counter("apiserver_watch_cache_events_received_total", "Counter of events received in watch cache broken by resource type.", labels),
		dispatched: counter("apiserver_watch_cache_events_dispatched_total", "Counter of events dispatched in watch cache broken by resource type.", labels),
		inits:      counter("apiserver_watch_cache_initializations_total", "Counter of watch cache initializations broken by resource type.", labels),
		lists:      counter("apiserver_cache_list_total", "Number of LIST requests served from watch cache.", labels),
		requests:   counter("etcd_requests_total", "Etcd request counts for each operation and object type.", ops),
		errors:     counter("etcd_request_errors_total", "Etcd failed request counts for each operation and object type.", ops),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "apiserver_watch_cache_read_wait_seconds",
			Help:    "Histogram of time spent waiting for a watch cache to become fresh.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3},
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "etcd_request_duration_seconds",
			Help:    "Etcd request latency in seconds for each operation and object type.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, ops),
		objects:    prometheus.NewDesc("apiserver_resource_objects", "Number of stored objects at the time of last check split by kind.", labels, nil),
		oldObjects: prometheus.NewDesc("apiserver_storage_objects", "Number of stored objects at the time of last check split by kind.", []string{"resource"}, nil),
		version:    prometheus.NewDesc("apiserver_watch_cache_resource_version", "Current resource version of watch cache broken by resource type.", labels, nil),
		capacity:   prometheus.NewDesc("watch_cache_capacity", "Total capacity of watch cache broken by resource type.", labels, nil),
	}
	if c.cfg.Metrics == nil {
		return m, nil
	}
	var errs []error
	for _, x := range []prometheus.Collector{m.received, m.dispatched, m.inits, m.lists, m.requests, m.errors, m.wait, m.duration, m} {
		errs = append(errs, c.cfg.Metrics.Register(x))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) space(prefix string) spaceMetrics {
	group, resource := m.c.cfg.Resource(prefix)
	s := spaceMetrics{
		m: m, group: group, resource: resource,
		received:        m.received.WithLabelValues(group, resource),
		dispatched:      m.dispatched.WithLabelValues(group, resource),
		initializations: m.inits.WithLabelValues(group, resource),
		lists:           m.lists.WithLabelValues(group, resource),
		duration:        map[string]prometheus.Observer{},
		requests:        map[string]prometheus.Counter{},
	}
	for _, op := range []string{"get", "list", "create", "update", "delete"} {
		s.duration[op] = m.duration.WithLabelValues(op, group, resource)
		s.requests[op] = m.requests.WithLabelValues(op, group, resource)
	}
	return s
}

// time measures one request to the store behind, until the result is called.
func (s *spaceMetrics) time(op string) func() {
	began := clock.Now()
	return func() {
		s.requests[op].Inc()
		s.duration[op].Observe(clock.Since(began).Seconds())
	}
}

// failed counts errors that are not ordinary answers.
func (s *spaceMetrics) failed(op string, err error) {
	var conflict *storage.ConflictError
	if errors.As(err, &conflict) || errors.Is(err, storage.ErrExists) || errors.Is(err, storage.ErrNotFound) {
		return
	}
	s.m.errors.WithLabelValues(op, s.group, s.resource).Inc()
}

func (m *metrics) waited() func() {
	began := clock.Now()
	return func() { m.wait.Observe(clock.Since(began).Seconds()) }
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.objects, m.oldObjects, m.version, m.capacity} {
		ch <- d
	}
}

// Collect implements prometheus.Collector: what is counted only when asked for.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range *m.c.spaces.Load() {
		s.mu.RLock()
		n, rev := s.tree.Len(), s.rev
		s.mu.RUnlock()
		name := s.met.resource
		if s.met.group != "" {
			name += "." + s.met.group
		}
		gauge(m.objects, float64(n), s.met.group, s.met.resource)
		gauge(m.oldObjects, float64(n), name)
		gauge(m.version, float64(rev), s.met.group, s.met.resource)
		gauge(m.capacity, float64(m.c.cfg.MaxEvents), s.met.group, s.met.resource)
	}
}

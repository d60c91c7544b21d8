package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics carry upstream kube-proxy's names.
type metrics struct {
	latency  prometheus.Histogram
	last     prometheus.Gauge
	failures prometheus.Counter
	services prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubeproxy_sync_proxy_rules_duration_seconds",
			Help: "Time to compile and lay the rules of the services that changed.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
			Help: "When rules were last laid, in seconds of the Unix epoch."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
			Help: "Transactions the kernel refused."}),
		services: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_services",
			Help: "Services with rules."}),
	}
	if r != nil {
		r.MustRegister(m.latency, m.last, m.failures, m.services)
	}
	return m
}

func (m *metrics) done(took time.Duration, services int) {
	m.latency.Observe(took.Seconds())
	m.last.SetToCurrentTime()
	m.services.Set(float64(services))
}

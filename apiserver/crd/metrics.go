package crd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are upstream's of conversion webhooks.
type metrics struct {
	versions *prometheus.HistogramVec
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	labels := []string{"result", "failure_type"}
	m := &metrics{
		versions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_crd_conversion_webhook_duration_seconds", Help: "CRD webhook conversion duration in seconds",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"crd_name", "from_version", "to_version", "succeeded"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_conversion_webhook_request_total", Help: "Counter for conversion webhook requests with success/failure and failure error type",
		}, labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_conversion_webhook_duration_seconds", Help: "Conversion webhook request latency",
			Buckets: []float64{0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 45, 60},
		}, labels),
	}
	if r != nil {
		r.MustRegister(m.versions, m.requests, m.seconds)
	}
	return m
}

// observe counts one conversion; failure is "" when there was none.
func (m *metrics) observe(crd, from, to, failure string, took time.Duration) {
	ok, result := "true", "success"
	if failure != "" {
		ok, result = "false", "failure"
	}
	m.versions.WithLabelValues(crd, from, to, ok).Observe(took.Seconds())
	m.requests.WithLabelValues(result, failure).Inc()
	m.seconds.WithLabelValues(result, failure).Observe(took.Seconds())
}

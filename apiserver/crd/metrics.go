package crd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are upstream's of custom resources.
type metrics struct {
	ratcheting prometheus.Histogram
	v2, v3     *prometheus.CounterVec

	// Of conversion webhooks.
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
	m.ratcheting = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "apiextensions_apiserver_validation_ratcheting_seconds", Help: "Time for comparison of old to new for the purposes of CRDValidationRatcheting during an UPDATE in seconds.",
		Buckets: prometheus.ExponentialBuckets(0.00001, 4, 10),
	})
	m.v2 = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiextensions_openapi_v2_regeneration_count", Help: "Counter of OpenAPI v2 spec regeneration count broken down by causing CRD name and reason.",
	}, []string{"crd", "reason"})
	m.v3 = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiextensions_openapi_v3_regeneration_count", Help: "Counter of OpenAPI v3 spec regeneration count broken down by group, version, causing CRD and reason.",
	}, []string{"group", "version", "crd", "reason"})
	if r != nil {
		r.MustRegister(m.versions, m.requests, m.seconds, m.ratcheting, m.v2, m.v3)
	}
	return m
}

// published counts the documents that a definition's change makes anew. Those of
// a definition that is gone are counted no more.
func (m *metrics) published(f *family, reason string) {
	m.v2.WithLabelValues(f.crd.Name, reason).Inc()
	for v, k := range f.kinds {
		if !k.info.Hidden {
			m.v3.WithLabelValues(f.crd.Spec.Group, v, f.crd.Name, reason).Inc()
		}
	}
}

func (m *metrics) forget(name string) {
	m.v2.DeletePartialMatch(prometheus.Labels{"crd": name})
	m.v3.DeletePartialMatch(prometheus.Labels{"crd": name})
	m.versions.DeletePartialMatch(prometheus.Labels{"crd_name": name})
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

package webhook

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are upstream's.
type metrics struct {
	duration                     *prometheus.HistogramVec
	rejections, opened, requests *prometheus.CounterVec
	exclusions                   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_admission_" + name, Help: help}, labels)
	}
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_admission_webhook_admission_duration_seconds",
			Help:    "Admission webhook latency in seconds, by name, operation and type (validating or admit).",
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10, 25},
		}, []string{"name", "type", "operation", "rejected"}),
		rejections: counter("webhook_rejection_count", "Requests that a webhook, or its failure, rejected.", "name", "type", "operation", "error_type", "rejection_code"),
		opened:     counter("webhook_fail_open_count", "Requests that went on although a webhook could not be asked.", "name", "type"),
		requests:   counter("webhook_request_total", "Requests to webhooks, by the code they ended with.", "name", "type", "operation", "code", "rejected"),
		exclusions: counter("match_condition_exclusions_total", "Requests that a match condition kept from a webhook or policy.", "name", "kind", "type", "operation"),
	}
	if reg != nil {
		reg.MustRegister(m.duration, m.rejections, m.opened, m.requests, m.exclusions)
	}
	return m
}

// The sorts of rejection.
const (
	byCallFailure = "calling_webhook_error"
	byServerFault = "apiserver_internal_error"
	byVerdict     = "no_error"
)

// maxCode bounds the codes that make series.
const maxCode = 600

func (m *metrics) asked(h *hook, op string, took time.Duration, code int, rejected bool) {
	sort := sortOf(h)
	m.duration.WithLabelValues(h.name, sort, op, strconv.FormatBool(rejected)).Observe(took.Seconds())
	m.requests.WithLabelValues(h.name, sort, op, strconv.Itoa(min(code, maxCode)), strconv.FormatBool(rejected)).Inc()
}

func (m *metrics) rejected(h *hook, op, why string, code int) {
	m.rejections.WithLabelValues(h.name, sortOf(h), op, why, strconv.Itoa(min(code, maxCode))).Inc()
}

func sortOf(h *hook) string {
	if h.kind == mutatingKind {
		return "admit"
	}
	return "validating"
}

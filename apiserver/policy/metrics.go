package policy

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are upstream's.
type metrics struct {
	checks, mutations       *prometheus.CounterVec
	checkTime, mutationTime *prometheus.HistogramVec
}

var (
	checkBuckets = []float64{0.0000005, 0.001, 0.01, 0.1, 1.0}
	checkLabels  = []string{"policy", "policy_binding", "error_type", "enforcement_action"}
	mutateLabels = []string{"policy", "policy_binding", "error_type"}
)

func newMetrics(reg prometheus.Registerer) *metrics {
	pair := func(sort, what string, labels []string) (*prometheus.CounterVec, *prometheus.HistogramVec) {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "apiserver_" + sort + "_admission_policy_check_total", Help: what + " admission policy check total, by policy and binding.",
			}, labels), prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Name: "apiserver_" + sort + "_admission_policy_check_duration_seconds", Help: what + " admission latency of single expressions in seconds.",
				Buckets: checkBuckets,
			}, labels)
	}
	m := &metrics{}
	m.checks, m.checkTime = pair("validating", "Validation", checkLabels)
	m.mutations, m.mutationTime = pair("mutating", "Mutation", mutateLabels)
	if reg != nil {
		reg.MustRegister(m.checks, m.checkTime, m.mutations, m.mutationTime)
	}
	return m
}

// The sorts of error.
const (
	noError     = "no_error"
	compileTime = "compile_error"
	overBudget  = "out_of_budget"
	invalid     = "invalid_error"
)

func (m *metrics) check(policy, binding, errorType, action string, took time.Duration) {
	m.checks.WithLabelValues(policy, binding, errorType, action).Inc()
	m.checkTime.WithLabelValues(policy, binding, errorType, action).Observe(took.Seconds())
}

func (m *metrics) mutation(policy, binding string, err error, took time.Duration) {
	sort := noError
	if err != nil {
		sort = errorType(err.Error())
	}
	m.mutations.WithLabelValues(policy, binding, sort).Inc()
	m.mutationTime.WithLabelValues(policy, binding, sort).Observe(took.Seconds())
}

func (f *finding) errorType() string {
	if f.admit && !f.failed {
		return noError
	}
	return errorType(f.message)
}

func errorType(message string) string {
	switch {
	case strings.HasPrefix(message, "compilation"):
		return compileTime
	case strings.HasPrefix(message, "validation failed due to running out of cost budget"):
		return overBudget
	}
	return invalid
}

package authz

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Metrics are authorization's, under upstream's names. Nil counts nothing.
type Metrics struct {
	decisions, evaluations, failOpen    *prometheus.CounterVec
	conditionErrors, exclusions, reload *prometheus.CounterVec
	duration, conditionTime             *prometheus.HistogramVec
	reloadedAt                          *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	if reg == nil {
		return nil
	}
	const prefix = "apiserver_authorization_"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	m := &Metrics{
		decisions:   counter("decisions_total", "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.", "type", "name", "decision"),
		evaluations: counter("webhook_evaluations_total", "Round-trips to authorization webhooks.", "name", "result"),
		failOpen:    counter("webhook_evaluations_fail_open_total", "NoOpinion results due to webhook timeout or error.", "name", "result"),
		conditionErrors: counter("match_condition_evaluation_errors_total",
			"Total number of errors when an authorization webhook encounters a match condition error split by authorizer type and name.", "type", "name"),
		exclusions: counter("match_condition_exclusions_total",
			"Total number of exclusions when an authorization webhook is skipped because match conditions exclude it.", "type", "name"),
		reload: counter("config_controller_automatic_reloads_total",
			"Total number of automatic reloads of authorization configuration split by status and apiserver identity.", "status", "apiserver_id_hash"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "webhook_duration_seconds", Help: "Request latency in seconds.",
			Buckets: prometheus.DefBuckets}, []string{"name", "result"}),
		conditionTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "match_condition_evaluation_seconds",
			Help: "Authorization match condition evaluation time in seconds, split by authorizer type and name.", Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25}}, []string{"type", "name"}),
		reloadedAt: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "config_controller_automatic_reload_last_timestamp_seconds",
			Help: "Timestamp of the last automatic reload of authorization configuration split by status and apiserver identity."}, []string{"status", "apiserver_id_hash"}),
	}
	reg.MustRegister(m.decisions, m.evaluations, m.failOpen, m.conditionErrors, m.exclusions, m.reload, m.duration, m.conditionTime, m.reloadedAt)
	return m
}

// counted is an authorizer whose decisions are counted.
type counted struct {
	request.Authorizer
	allowed, denied prometheus.Counter
}

func (m *Metrics) count(kind, name string, a request.Authorizer) request.Authorizer {
	if m == nil {
		return a
	}
	return counted{a, m.decisions.WithLabelValues(kind, name, "allowed"), m.decisions.WithLabelValues(kind, name, "denied")}
}

// Authorize asks and counts.
func (c counted) Authorize(ctx context.Context, u *request.User, i *request.Info) (request.Decision, string, error) {
	d, reason, err := c.Authorizer.Authorize(ctx, u, i)
	switch d {
	case request.Allow:
		c.allowed.Inc()
	case request.Deny:
		c.denied.Inc()
	}
	return d, reason, err
}

// Rules lists what the authorizer can.
func (c counted) Rules(ctx context.Context, u *request.User, namespace string) ([]request.ResourceRule, []request.NonResourceRule, bool, error) {
	if l, ok := c.Authorizer.(request.RuleLister); ok {
		return l.Rules(ctx, u, namespace)
	}
	return nil, nil, false, nil
}

// webhook counts a call.
func (m *Metrics) webhook(name, result string, took time.Duration) {
	if m != nil {
		m.evaluations.WithLabelValues(name, result).Inc()
		m.duration.WithLabelValues(name, result).Observe(took.Seconds())
	}
}

func (m *Metrics) failedOpen(name, result string) {
	if m != nil {
		m.failOpen.WithLabelValues(name, result).Inc()
	}
}

// The three methods of the match conditions' own interface.

// RecordAuthorizationMatchConditionEvaluation implements cel.MatcherMetrics.
func (m *Metrics) RecordAuthorizationMatchConditionEvaluation(_ context.Context, kind, name string, took time.Duration) {
	if m != nil {
		m.conditionTime.WithLabelValues(kind, name).Observe(took.Seconds())
	}
}

// RecordAuthorizationMatchConditionEvaluationFailure implements cel.MatcherMetrics.
func (m *Metrics) RecordAuthorizationMatchConditionEvaluationFailure(_ context.Context, kind, name string) {
	if m != nil {
		m.conditionErrors.WithLabelValues(kind, name).Inc()
	}
}

// RecordAuthorizationMatchConditionExclusion implements cel.MatcherMetrics.
func (m *Metrics) RecordAuthorizationMatchConditionExclusion(_ context.Context, kind, name string) {
	if m != nil {
		m.exclusions.WithLabelValues(kind, name).Inc()
	}
}

func (m *Metrics) reloaded(err error) {
	if m == nil {
		return
	}
	status := "success"
	if err != nil {
		status = "failure"
	}
	m.reload.WithLabelValues(status, "").Inc()
	m.reloadedAt.WithLabelValues(status, "").Set(float64(clock.Now().Unix()))
}

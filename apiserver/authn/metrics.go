package authn

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Metrics are authentication's, under upstream's names. Nil counts nothing.
type Metrics struct {
	attempts, users, cached, reloads *prometheus.CounterVec
	duration                         *prometheus.HistogramVec
	reloadedAt                       *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	if reg == nil {
		return nil
	}
	m := &Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authentication_attempts",
			Help: "Counter of authenticated attempts."}, []string{"result"}),
		users: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authenticated_user_requests",
			Help: "Counter of authenticated requests broken out by username."}, []string{"username"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "authentication_duration_seconds",
			Help: "Authentication duration in seconds broken out by result.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"result"}),
		cached: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authentication_token_cache_request_total",
			Help: "Counter of requests to the cache of authenticated tokens."}, []string{"status"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_authentication_config_controller_automatic_reloads_total",
			Help: "Total number of automatic reloads of authentication configuration split by status and apiserver identity."}, []string{"status", "apiserver_id_hash"}),
		reloadedAt: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
			Help: "Timestamp of the last automatic reload of authentication configuration split by status and apiserver identity."}, []string{"status", "apiserver_id_hash"}),
	}
	reg.MustRegister(m.attempts, m.users, m.duration, m.cached, m.reloads, m.reloadedAt)
	return m
}

// asked counts one request and how it went.
func (m *Metrics) asked(u *request.User, err error, took time.Duration) {
	if m == nil {
		return
	}
	result := "success"
	switch {
	case err != nil:
		result = "error"
	case u == nil:
		result = "failure"
	default:
		m.users.WithLabelValues(userLabel(u.Name)).Inc()
	}
	m.attempts.WithLabelValues(result).Inc()
	m.duration.WithLabelValues(result).Observe(took.Seconds())
}

// userLabel keeps the number of labels small.
func userLabel(name string) string {
	switch name {
	case "admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default":
		return name
	}
	if strings.Contains(name, "@") {
		return "email_id"
	}
	return "other"
}

func (m *Metrics) cache(hit bool) {
	if m == nil {
		return
	}
	status := "miss"
	if hit {
		status = "hit"
	}
	m.cached.WithLabelValues(status).Inc()
}

func (m *Metrics) reloaded(err error) {
	if m == nil {
		return
	}
	status := "success"
	if err != nil {
		status = "failure"
	}
	m.reloads.WithLabelValues(status, "").Inc()
	m.reloadedAt.WithLabelValues(status, "").Set(float64(clock.Now().Unix()))
}

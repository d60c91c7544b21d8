package apiserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// judged counts the authorizers' decisions about requests.
type judged struct {
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newJudged(reg prometheus.Registerer) *judged {
	j := &judged{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authorization_attempts_total",
			Help: "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'."}, []string{"result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "authorization_duration_seconds",
			Help: "Authorization duration in seconds broken out by result.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"result"}),
	}
	reg.MustRegister(j.attempts, j.duration)
	return j
}

func (j *judged) count(d request.Decision, err error, took time.Duration) {
	result := "no-opinion"
	switch {
	case d == request.Allow:
		result = "allowed"
	case err != nil:
		result = "error"
	case d == request.Deny:
		result = "denied"
	}
	j.attempts.WithLabelValues(result).Inc()
	j.duration.WithLabelValues(result).Observe(took.Seconds())
}

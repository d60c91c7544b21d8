package scheduler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures under upstream's names; nil measures nothing.
type metrics struct {
	attempts  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	algorithm prometheus.Histogram
	sli       *prometheus.HistogramVec
	preempts  prometheus.Counter
	victims   prometheus.Histogram
	profile   string
}

func newMetrics(r prometheus.Registerer, profile string, pending func(stage) float64) *metrics {
	if r == nil {
		return nil
	}
	buckets := prometheus.ExponentialBuckets(0.001, 2, 20)
	m := &metrics{
		profile:   profile,
		attempts:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total", Help: "Number of attempts to schedule pods, by the result."}, []string{"result", "profile"}),
		duration:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds", Help: "Scheduling attempt latency in seconds (scheduling algorithm + binding)", Buckets: buckets}, []string{"result", "profile"}),
		algorithm: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_scheduling_algorithm_duration_seconds", Help: "Scheduling algorithm latency in seconds", Buckets: prometheus.ExponentialBuckets(0.00001, 2, 20)}),
		sli:       prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds", Help: "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20)}, []string{"attempts"}),
		preempts:  prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total", Help: "Total preemption attempts in the cluster till now"}),
		victims:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims", Help: "Number of selected preemption victims", Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
	}
	for _, c := range []prometheus.Collector{m.attempts, m.duration, m.algorithm, m.sli, m.preempts, m.victims} {
		register(r, c)
	}
	for name, s := range map[string]stage{"active": active, "backoff": backingOff, "unschedulable": unschedulable, "gated": gated} {
		register(r, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "scheduler_pending_pods", Help: "Number of pending pods, by the queue type.", ConstLabels: prometheus.Labels{"queue": name}},
			func() float64 { return pending(s) }))
	}
	return m
}

// register puts c in the place of an earlier term of leadership's.
func register(r prometheus.Registerer, c prometheus.Collector) {
	if err := r.Register(c); err != nil {
		r.Unregister(c)
		r.MustRegister(c)
	}
}

func (m *metrics) tried(result string, took time.Duration) {
	if m != nil {
		m.attempts.WithLabelValues(result, m.profile).Inc()
		m.duration.WithLabelValues(result, m.profile).Observe(took.Seconds())
	}
}

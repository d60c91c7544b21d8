package aggregate

import (
	"github.com/prometheus/client_golang/prometheus"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// metrics are the aggregator's, under upstream's names.
type metrics struct {
	unavailable *prometheus.GaugeVec
	total       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		unavailable: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aggregator_unavailable_apiservice",
			Help: "Gauge of APIServices which are marked as unavailable broken down by APIService name."}, []string{"name"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aggregator_unavailable_apiservice_total",
			Help: "Counter of APIServices which are marked as unavailable broken down by APIService name and reason."}, []string{"name", "reason"}),
	}
	if reg != nil {
		reg.MustRegister(m.unavailable, m.total)
	}
	return m
}

func (m *metrics) set(name string, c apiregistrationv1.APIServiceCondition) {
	v := 0.0
	if c.Status != apiregistrationv1.ConditionTrue {
		v = 1
	}
	m.unavailable.WithLabelValues(name).Set(v)
}

func (m *metrics) changed(name string, c apiregistrationv1.APIServiceCondition) {
	if c.Status == apiregistrationv1.ConditionTrue {
		return
	}
	reason := c.Reason
	if reason == "" {
		reason = "UnknownReason"
	}
	m.total.WithLabelValues(name, reason).Inc()
}

func (m *metrics) forget(name string) {
	m.unavailable.DeleteLabelValues(name)
	m.total.DeletePartialMatch(prometheus.Labels{"name": name})
}

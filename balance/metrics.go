package balance

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	ready, connections *prometheus.GaugeVec
	closed, failures   *prometheus.CounterVec
	refused            prometheus.Counter
}

func newMetrics(r *prometheus.Registry) *metrics {
	if r == nil {
		r = prometheus.NewRegistry()
	}
	of := []string{"server"}
	m := &metrics{
		ready:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sampan_balancer_server_ready", Help: "Whether the API server said that it is ready."}, of),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sampan_balancer_connections", Help: "Connections to the API server by this node's balancer."}, of),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sampan_balancer_connections_closed_total",
			Help: "Connections closed because the API server no longer answered, or was not ready while another was."}, of),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sampan_balancer_dial_failures_total", Help: "Connections that the API server did not take."}, of),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: "sampan_balancer_refused_total", Help: "Clients for whom no API server was found."}),
	}
	r.MustRegister(m.ready, m.connections, m.closed, m.failures, m.refused)
	return m
}

// forget drops what is said of a server that is gone.
func (m *metrics) forget(addr string) {
	m.ready.DeleteLabelValues(addr)
	m.connections.DeleteLabelValues(addr)
}

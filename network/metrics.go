package network

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the overlay tells of itself.
type metrics struct {
	peers     prometheus.Gauge
	syncs     *prometheus.CounterVec
	reachable *prometheus.GaugeVec
	probe     *prometheus.GaugeVec
	repairs   prometheus.Counter
}

// newMetrics registers with r, which may be nil.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		peers:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "sampan_overlay_peers", Help: "Other nodes whose pods are reached through the overlay."}),
		syncs:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sampan_overlay_syncs_total", Help: "Comparisons of the kernel's routes with the nodes, by result: same, changed or error."}, []string{"result"}),
		reachable: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sampan_overlay_peer_reachable", Help: "Whether the last test reached another node's pods, with packets as large as pods send."}, []string{"node"}),
		probe:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sampan_overlay_probe_seconds", Help: "How long the last answer of another node took."}, []string{"node"}),
		repairs:   prometheus.NewCounter(prometheus.CounterOpts{Name: "sampan_overlay_checksum_repairs_total", Help: "How often checksum offload was switched off because it spoiled packets."}),
	}
	if r != nil {
		r.MustRegister(m.peers, m.syncs, m.reachable, m.probe, m.repairs)
	}
	return m
}

func (m *metrics) synced(peers int, changed bool, err error) {
	m.peers.Set(float64(peers))
	switch {
	case err != nil:
		m.syncs.WithLabelValues("error").Inc()
	case changed:
		m.syncs.WithLabelValues("changed").Inc()
	default:
		m.syncs.WithLabelValues("same").Inc()
	}
}

// found counts a test of a peer.
func (m *metrics) found(f finding) {
	ok := 0.0
	if f.small == arrived && f.large != lost && f.sum != lost {
		ok = 1
	}
	m.reachable.WithLabelValues(f.peer.Name).Set(ok)
	if f.took > 0 {
		m.probe.WithLabelValues(f.peer.Name).Set(f.took.Seconds())
	}
}

// forget drops what was told of nodes that are no peers any more.
func (m *metrics) forget(name string) {
	m.reachable.DeleteLabelValues(name)
	m.probe.DeleteLabelValues(name)
}

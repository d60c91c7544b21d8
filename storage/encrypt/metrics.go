package encrypt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kit/clock"
)

// metrics have upstream's names.
type metrics struct {
	operations *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	misses     prometheus.Counter
	reloads    *prometheus.CounterVec
	last       *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_storage_transformation_operations_total",
			Help: "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails. The status, resource, and transformation_type fields can be used for alerting purposes. For example, you can monitor for encryption/decryption failures using the transformation_type (e.g., from_storage for decryption and to_storage for encryption). Additionally, these fields can be used to ensure that the correct transformers are applied to each resource."},
			[]string{"resource", "transformation_type", "transformer_prefix", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_storage_transformation_duration_seconds",
			Help: "Latencies in seconds of value transformation operations.", Buckets: prometheus.ExponentialBuckets(5e-6, 2, 25)},
			[]string{"transformation_type", "transformer_prefix"}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{Name: "apiserver_storage_envelope_transformation_cache_misses_total",
			Help: "Total number of cache misses while accessing key decryption key(KEK)."}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_encryption_config_controller_automatic_reloads_total",
			Help: "Total number of reload successes and failures of encryption configuration."}, []string{"status"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
			Help: "Timestamp of the last successful or failed automatic reload of encryption configuration."}, []string{"status"}),
	}
	if reg != nil {
		reg.MustRegister(m.operations, m.duration, m.misses, m.reloads, m.last)
	}
	return m
}

// did counts one transformation.
func (m *metrics) did(kind, prefix string, gr schema.GroupResource, began time.Time, err error) {
	if prefix == "" {
		prefix = "identity"
	}
	code := codes.OK
	if err != nil {
		code = status.Code(err)
	} else {
		m.duration.WithLabelValues(kind, prefix).Observe(clock.Since(began).Seconds())
	}
	m.operations.WithLabelValues(gr.String(), kind, prefix, code.String()).Inc()
}

func (m *metrics) reloaded(err error) {
	how := "success"
	if err != nil {
		how = "failure"
	}
	m.reloads.WithLabelValues(how).Inc()
	m.last.WithLabelValues(how).Set(float64(clock.Now().UnixNano()) / 1e9)
}

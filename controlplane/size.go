package controlplane

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// storageSize is upstream's metric of the database's size, asked for when somebody
// looks.
type storageSize struct {
	desc *prometheus.Desc
	size func(context.Context) (int64, error)
	log  *slog.Logger
}

func newStorageSize(size func(context.Context) (int64, error), log *slog.Logger) *storageSize {
	return &storageSize{size: size, log: log, desc: prometheus.NewDesc("apiserver_storage_size_bytes",
		"Size of the storage database file physically allocated in bytes.", []string{"storage_cluster_id"}, nil)}
}

// Describe implements prometheus.Collector.
func (s *storageSize) Describe(ch chan<- *prometheus.Desc) { ch <- s.desc }

// sizePatience bounds how long a look at the metrics waits for etcd.
const sizePatience = 2 * time.Second

// Collect implements prometheus.Collector.
func (s *storageSize) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), sizePatience)
	defer cancel()
	n, err := s.size(ctx)
	if err != nil {
		s.log.Info("the size of etcd's database is not known", "err", err)
		return
	}
	ch <- prometheus.MustNewConstMetric(s.desc, prometheus.GaugeValue, float64(n), "etcd-0")
}

package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestStorageSize(t *testing.T) {
	var fails error
	reg := prometheus.NewRegistry()
	reg.MustRegister(newStorageSize(func(context.Context) (int64, error) { return 4096, fails }, slog.New(slog.DiscardHandler)))
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "apiserver_storage_size_bytes" {
		t.Fatalf("%v %v", families, err)
	}
	m := families[0].GetMetric()[0]
	if m.GetGauge().GetValue() != 4096 || m.GetLabel()[0].GetName() != "storage_cluster_id" || m.GetLabel()[0].GetValue() != "etcd-0" {
		t.Errorf("%v", m)
	}
	fails = errors.New("away")
	if families, err = reg.Gather(); err != nil || len(families) != 0 {
		t.Errorf("while etcd is away: %v %v", families, err)
	}
}

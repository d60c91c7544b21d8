package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// monitorUser is who lets an operator look after Prometheus.
type monitorUser struct {
	*stage
}

const (
	monitorSpace = "monitoring"
	monitored    = `
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: main, namespace: monitoring}
spec:
  replicas: 2
  serviceAccountName: prometheus
  serviceMonitorSelector: {}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: web, namespace: monitoring}
spec:
  selector: {matchLabels: {app: web}}
  endpoints: [{port: http, interval: 17s}]
`
)

func prometheusOperator(s *stage) *scene {
	m := &monitorUser{s}
	sc := &scene{name: "prometheus-operator", program: "prometheus-operator", version: programs["prometheus-operator"].version, clean: m.clean}
	sc.acts = []act{
		{"`kubectl create -f bundle.yaml`: ten definitions, and the operator's Deployment is Available", m.install},
		{"a Prometheus becomes a StatefulSet, and a ServiceMonitor part of its configuration", m.reconcile},
		{"`kubectl scale prometheus` by the definition's scale subresource: a shard more, a shard less", m.scale},
		{"a Prometheus and a ServiceMonitor that their schemas refuse", m.refuse},
		{"the Prometheus deleted, its StatefulSet is collected; `kubectl delete -f bundle.yaml`", m.remove},
	}
	return sc
}

func (m *monitorUser) bundle(ctx context.Context) (string, error) {
	dir, err := source(ctx, "prometheus-operator")
	return filepath.Join(dir, "bundle.yaml"), err
}

func (m *monitorUser) install(ctx context.Context) error {
	bundle, err := m.bundle(ctx)
	if err != nil {
		return err
	}
	out, err := m.kubectl(ctx, "create", "-f", bundle)
	if err != nil {
		return err
	}
	if n := strings.Count(out, "customresourcedefinition.apiextensions.k8s.io/"); n != 10 {
		return fmt.Errorf("%d definitions were made:\n%s", n, out)
	}
	_, err = m.kubectl(ctx, "rollout", "status", "deployment/prometheus-operator", "--timeout=3m")
	return err
}

func (m *monitorUser) reconcile(ctx context.Context) error {
	if _, err := m.in(ctx, monitored, "apply", "-f", "-"); err != nil {
		return err
	}
	return m.until(ctx, 2*time.Minute, func() error {
		config, err := m.configuration(ctx)
		return errors.Join(
			says(config, err, "job_name: serviceMonitor/monitoring/web/0", "scrape_interval: 17s"),
			m.is(ctx, "True", `{.status.conditions[?(@.type=="Reconciled")].status}`, "-n", monitorSpace, "prometheus/main"),
			m.is(ctx, "2 Prometheus/main", "{.spec.replicas} {.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}", "-n", monitorSpace, "statefulset/prometheus-main"),
			m.is(ctx, "2", "{.status.replicas}", "-n", monitorSpace, "prometheus/main"))
	})
}

// configuration is what the operator wrote for Prometheus to read.
func (m *monitorUser) configuration(ctx context.Context) (string, error) {
	var s struct{ Data map[string][]byte }
	if err := m.object(ctx, &s, "-n", monitorSpace, "secret/prometheus-main"); err != nil {
		return "", err
	}
	r, err := gzip.NewReader(bytes.NewReader(s.Data["prometheus.yaml.gz"]))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), err
}

// scale: what the definition calls replicas are shards, a StatefulSet each.
func (m *monitorUser) scale(ctx context.Context) error {
	for _, shards := range []string{"2", "1"} {
		if _, err := m.kubectl(ctx, "scale", "-n", monitorSpace, "prometheus/main", "--replicas="+shards); err != nil {
			return err
		}
		want := map[string]string{"2": "prometheus-main prometheus-main-shard-1", "1": "prometheus-main"}[shards]
		err := m.until(ctx, time.Minute, func() error {
			return m.is(ctx, want, "{.items[*].metadata.name}", "-n", monitorSpace, "statefulset")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *monitorUser) refuse(ctx context.Context) error {
	out, err := m.kubectl(ctx, "patch", "-n", monitorSpace, "prometheus/main", "--type=merge", "-p", `{"spec":{"scrapeInterval":"soon","replicas":"many"}}`)
	if err := refused(out, err, "spec.replicas: Invalid value", "must be of type integer", "spec.scrapeInterval: Invalid value"); err != nil {
		return err
	}
	out, err = m.kubectl(ctx, "patch", "-n", monitorSpace, "servicemonitor/web", "--type=json", "-p", `[{"op":"remove","path":"/spec/selector"}]`)
	return refused(out, err, "spec.selector: Required value")
}

func (m *monitorUser) remove(ctx context.Context) error {
	if _, err := m.kubectl(ctx, "delete", "-n", monitorSpace, "prometheus/main", "--timeout=1m"); err != nil {
		return err
	}
	err := m.until(ctx, time.Minute, func() error {
		out, err := m.kubectl(ctx, "get", "statefulset,pod", "-n", monitorSpace, "-o", "name")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("left: %s", out)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := m.clean(ctx); err != nil {
		return err
	}
	out, err := m.kubectl(ctx, "get", "crd", "-o", "name")
	if err == nil && strings.Contains(out, "monitoring.coreos.com") {
		err = fmt.Errorf("left: %s", out)
	}
	return err
}

func (m *monitorUser) clean(ctx context.Context) error {
	bundle, err := m.bundle(ctx)
	if err != nil {
		return err
	}
	_, a := m.kubectl(ctx, "delete", "namespace", monitorSpace, "--ignore-not-found", "--timeout=2m")
	_, b := m.kubectl(ctx, "delete", "-f", bundle, "--ignore-not-found", "--timeout=2m")
	return errors.Join(a, b)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// metricsUser is who installs metrics-server and lives by its figures.
type metricsUser struct {
	*stage
}

const busySpace = "busy"

// busy is work that takes all the processor it may have, and its scaling. Down
// it goes at once, not after the usual five minutes.
const busy = `
apiVersion: v1
kind: Namespace
metadata: {name: busy}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy, namespace: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: busy
        image: busybox
        command: [sh, -c, "while :; do :; done"]
        resources:
          requests: {cpu: 50m, memory: 8Mi}
          limits: {cpu: 100m, memory: 32Mi}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy, namespace: busy}
spec:
  minReplicas: 1
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 0}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: jane-views, namespace: busy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}]
`

func metricsServer(s *stage) *scene {
	m := &metricsUser{s}
	sc := &scene{name: "metrics-server", program: "metrics-server", version: programs["metrics-server"].version, clean: m.clean}
	sc.acts = []act{
		{"`kubectl apply -k` of its release manifests: Deployment and APIService become Available", m.install},
		{"`kubectl top nodes`", m.topNodes},
		{"`kubectl top pods -A --containers`; a user with `view` sees her namespace's figures only", m.topPods},
		{"a HorizontalPodAutoscaler (`autoscaling/v2`, cpu) scales a busy Deployment from 1 to 3", m.scaleUp},
		{"the work ends, and it scales back to 1", m.scaleDown},
		{"`kubectl delete -k`: the API is unregistered, and namespaces still go", m.remove},
	}
	return sc
}

// manifests is the directory of a release's components.
func (m *metricsUser) manifests(ctx context.Context) (string, error) {
	dir, err := source(ctx, "metrics-server")
	return filepath.Join(dir, "manifests/overlays/release"), err
}

func (m *metricsUser) install(ctx context.Context) error {
	dir, err := m.manifests(ctx)
	if err != nil {
		return err
	}
	if _, err := m.kubectl(ctx, "apply", "-k", dir); err != nil {
		return err
	}
	// A node's certificate is its own, as it is upstream unless it asks for one
	// (serverTLSBootstrap), so there is no authority to check it by.
	insecure := `[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--kubelet-insecure-tls"}]`
	if _, err := m.kubectl(ctx, "patch", "-n", "kube-system", "deployment/metrics-server", "--type=json", "-p", insecure); err != nil {
		return err
	}
	if _, err := m.kubectl(ctx, "rollout", "status", "-n", "kube-system", "deployment/metrics-server", "--timeout=3m"); err != nil {
		return err
	}
	if _, err := m.kubectl(ctx, "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=1m"); err != nil {
		return err
	}
	out, err := m.kubectl(ctx, "api-resources", "--api-group=metrics.k8s.io")
	return says(out, err, "NodeMetrics", "PodMetrics")
}

// each runs something with every kubectl there is, until it says what is wanted.
func (m *metricsUser) each(ctx context.Context, want string, args ...string) error {
	is := regexp.MustCompile(want)
	for _, k := range m.kubectls() {
		err := m.until(ctx, 2*time.Minute, func() error {
			out, err := m.run(ctx, "", append(k, args...)...)
			if err == nil && !is.MatchString(out) {
				err = fmt.Errorf("want %s in:\n%s", want, out)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *metricsUser) topNodes(ctx context.Context) error {
	return m.each(ctx, `(?m)^`+m.cluster+`\S* +[1-9]\d*m +\d+% +[1-9]\d*Mi +\d+%`, "top", "nodes")
}

func (m *metricsUser) topPods(ctx context.Context) error {
	if _, err := m.in(ctx, busy, "apply", "-f", "-"); err != nil {
		return err
	}
	if err := errors.Join(
		m.each(ctx, `(?m)^kube-system +metrics-server-\S+ +metrics-server +\d+m +[1-9]\d*Mi`, "top", "pods", "-A", "--containers"),
		m.each(ctx, `(?m)^busy-\S+ +[5-9]\dm|1\d\dm`, "top", "pods", "-n", busySpace, "--as=jane")); err != nil {
		return err
	}
	out, err := m.kubectl(ctx, "top", "pods", "-n", "kube-system", "--as=jane")
	return refused(out, err, `User "jane" cannot list resource "pods" in API group "metrics.k8s.io" in the namespace "kube-system"`)
}

func (m *metricsUser) scaleUp(ctx context.Context) error {
	err := m.until(ctx, 4*time.Minute, func() error {
		return m.is(ctx, "3", "{.status.readyReplicas}", "-n", busySpace, "deployment/busy")
	})
	if err != nil {
		out, _ := m.kubectl(ctx, "describe", "hpa", "-n", busySpace, "busy")
		return fmt.Errorf("%w\n%s", err, out)
	}
	out, err := m.kubectl(ctx, "describe", "hpa", "-n", busySpace, "busy")
	return says(out, err, "SuccessfulRescale", "reason: cpu resource utilization (percentage of request) above target",
		"the HPA was able to successfully calculate a replica count from cpu resource utilization")
}

func (m *metricsUser) scaleDown(ctx context.Context) error {
	patch := `[{"op":"replace","path":"/spec/template/spec/containers/0/command","value":["sleep","infinity"]}]`
	if _, err := m.kubectl(ctx, "patch", "-n", busySpace, "deployment/busy", "--type=json", "-p", patch); err != nil {
		return err
	}
	return m.until(ctx, 4*time.Minute, func() error {
		return errors.Join(
			m.is(ctx, "1", "{.spec.replicas}", "-n", busySpace, "deployment/busy"),
			m.is(ctx, "1", "{.status.currentReplicas}", "-n", busySpace, "hpa/busy"))
	})
}

func (m *metricsUser) remove(ctx context.Context) error {
	if err := m.clean(ctx); err != nil {
		return err
	}
	out, err := m.kubectl(ctx, "api-resources")
	if err == nil && strings.Contains(out, "metrics.k8s.io") {
		err = fmt.Errorf("the API is still there:\n%s", out)
	}
	if err != nil {
		return err
	}
	out, err = m.kubectl(ctx, "top", "nodes")
	return refused(out, err, "Metrics API not available")
}

// clean takes the server away first: a namespace must go with what it served
// gone.
func (m *metricsUser) clean(ctx context.Context) error {
	dir, err := m.manifests(ctx)
	if err != nil {
		return err
	}
	_, a := m.kubectl(ctx, "delete", "-k", dir, "--ignore-not-found", "--timeout=2m")
	_, b := m.kubectl(ctx, "delete", "namespace", busySpace, "--ignore-not-found", "--timeout=2m")
	return errors.Join(a, b)
}

package job

import (
	batchv1 "k8s.io/api/batch/v1"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/semantics/jobspec"
)

// figures are upstream's.
type figures struct {
	finished, pods, foreign, byPolicy *prometheus.CounterVec
}

func newFigures(m *controller.Metrics) figures {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "job_controller", Name: name, Help: help}
	}
	return figures{
		finished: m.Counters(opts("jobs_finished_total", "The number of finished jobs"), "completion_mode", "result", "reason"),
		pods:     m.Counters(opts("job_pods_finished_total", "The number of finished Pods that are fully tracked"), "completion_mode", "result"),
		foreign:  m.Counters(opts("jobs_by_external_controller_total", "The number of Jobs managed by an external controller"), "controller_name"),
		byPolicy: m.Counters(opts("pod_failures_handled_by_failure_policy_total", "The number of failed Pods handled by failure policy"), "action"),
	}
}

func modeOf(j *batchv1.Job) string {
	if jobspec.Indexed(&j.Spec) {
		return string(batchv1.IndexedCompletion)
	}
	return string(batchv1.NonIndexedCompletion)
}

// counted takes the difference of two statuses into the figures.
func (f figures) counted(j *batchv1.Job, next *batchv1.JobStatus) {
	mode := modeOf(j)
	if n := next.Succeeded - j.Status.Succeeded; n > 0 {
		f.pods.WithLabelValues(mode, "succeeded").Add(float64(n))
	}
	if n := next.Failed - j.Status.Failed; n > 0 {
		f.pods.WithLabelValues(mode, "failed").Add(float64(n))
	}
	for kind, result := range map[batchv1.JobConditionType]string{batchv1.JobComplete: "succeeded", batchv1.JobFailed: "failed"} {
		if holds(next.Conditions, kind) && !holds(j.Status.Conditions, kind) {
			f.finished.WithLabelValues(mode, result, find(next.Conditions, kind).Reason).Inc()
		}
	}
}

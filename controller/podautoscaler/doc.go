// Package podautoscaler changes the number of pods by what they use.
//
// Job: every 15 seconds compare what a HorizontalPodAutoscaler's metrics say with
// its targets, and write the scale of what it scales, within its limits and no
// faster than its behavior allows.
//
// Not its job: measuring (metrics.k8s.io and its kin are served by others),
// making pods.
//
// Invariants: without a single metric that could be read it never scales; while
// some metrics are missing it never scales down.
package podautoscaler

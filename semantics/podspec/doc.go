// Package podspec knows what a pod's specification means before it runs.
//
// Job: defaults and validation of PodSpec and PodTemplateSpec, for pods and for
// every workload that makes pods of a template; what differs between an old and
// a new specification.
//
// Not its job: what is going on with a running pod (semantics/pod), policies of
// a namespace (admission).
//
// Invariants: pure; defaults are idempotent; error paths and texts are those
// that stock clients know.
package podspec

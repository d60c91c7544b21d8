// Package controlplane puts a control plane together: store, API server,
// controllers and scheduler, in one process or each alone.
//
// Job: wiring, in order; the one list of controllers.
//
// Not its job: any decision about objects; keys and certificates (bootstrap).
package controlplane

// Package kubelet is the node agent: it makes the runtime run what the API
// server and the static manifests say, and tells how it goes.
//
// Job: one loop per pod (observe, decide, do, report), the sources of pods, the
// start and end of containers, and putting the rooms below it together.
//
// Not its job: what configurations look like (kubelet/spec), files and mounts
// (kubelet/volume), the words of a status (kubelet/status), the HTTP endpoint
// (kubelet/server).
//
// Invariants: Decide is pure; a restart of the agent restarts no container; a
// pod whose containers may still run is never forgotten nor deleted from the
// API; an unreachable API stops nothing.
//
// Read first: decide.go, then worker.go.
package kubelet

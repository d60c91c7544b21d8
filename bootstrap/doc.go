// Package bootstrap brings a cluster into being: what must exist in it beyond
// the control plane itself.
//
// Job: the system's own objects (cluster DNS, the kubeadm-style ConfigMaps) as
// manifests, applied when the API answers and kept as the user changed them.
//
// Not its job: running components (controlplane, node), machines (machine).
//
// Invariants: an object the user changed or deleted stays so until the version
// of its manifest changes; applying twice changes nothing.
package bootstrap

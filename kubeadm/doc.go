// Package kubeadm makes clusters of many machines the way kubeadm does: the same
// commands, flags, phases, files and words.
//
// Job: init, join, reset, token, certs, config, kubeconfig, upgrade; the files in
// /etc/kubernetes, static pods of the control plane, the objects by which
// machines join, and etcd's members.
//
// Not its job: what the components do (they run as static pods, from the
// binary's own image), the container runtime and the kubelet's life (the init
// system's), the lean control plane in one process (bootstrap).
//
// Invariants: a command may be run again after it failed half-way: what is there
// and fits is used, what is missing is made; nothing that a user put there (an
// authority, a kubeconfig, a manifest) is replaced without being asked. Every
// phase is named as upstream's and can be run or skipped alone.
package kubeadm

// Package scheduler finds a node for every pod that has none.
//
// Job: keep the cluster's free room in memory, filter and score nodes for a pod
// (Place), bind, and say why not; make room for a pod of higher priority.
//
// Not its job: running pods, evicting them for other reasons.
//
// Invariants: Place is pure: the same cluster, pod and seed give the same node.
// A pod that was bound counts on its node before the binding is confirmed
// (assumed), so no room is given away twice. The arithmetic of one class of
// pods (all that matters for placing is equal) is kept and brought up to date
// by what changed since, never recomputed: placing costs one pass over numbers.
//
// Read first: cluster.go (what is known), class.go (what is kept per class),
// place.go (the decision), run.go (the loop).
package scheduler

// Package nodelifecycle watches the heartbeats of nodes and taints those that fail.
//
// Job: set the conditions of a silent node to Unknown, taint nodes by their
// conditions, mark the pods of silent nodes not ready.
//
// Not its job: evicting pods (tainteviction), making or removing nodes.
//
// Invariants: silence is measured by this process's own clock, from when a
// heartbeat was last seen to change. When no node at all is ready, the fault is
// taken to be here: no node gets a NoExecute taint, and those there are removed.
package nodelifecycle

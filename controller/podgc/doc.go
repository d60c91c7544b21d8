// Package podgc removes pods that nobody will ever finish.
//
// Job: delete the oldest finished pods beyond a threshold, pods of nodes that
// are gone, pods that were deleted before they had a node, and deleted pods of
// nodes that are out of service.
//
// Not its job: pods of tainted nodes (tainteviction), dependents (garbagecollector).
//
// Invariants: pods of a node are orphans only when the node was missing for a
// while and the server, asked directly, does not have it.
package podgc

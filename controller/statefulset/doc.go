// Package statefulset keeps the ordered pods of StatefulSets.
//
// Job: give each ordinal its pod and its claims, one after the other or all at
// once, scale from the highest ordinal down, replace pods of old templates from
// the highest down, keep templates as ControllerRevisions, and report the status.
//
// Not its job: the Service that names the pods, volumes behind claims.
//
// Invariants: there are never two pods of one ordinal; in order means that no
// pod is made, removed or replaced while an earlier step's pod is not available.
package statefulset

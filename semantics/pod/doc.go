// Package pod judges a pod as it runs.
//
// Job: its quality of service, its conditions and phase, what it asks of a
// node, and how much of a quota it uses.
//
// Not its job: whether its specification is well formed (semantics/podspec).
//
// Invariants: pure; nothing is modified but what a function says it sets.
package pod

// Package doctor says what is wrong with a cluster or a machine, and the command
// that mends it.
//
// Job: Facts, what was seen; Examine, a pure function from facts to findings;
// Gather, which looks; Report, how it is told.
//
// Not its job: mending. Nothing is changed, neither in the cluster nor on the
// machine.
//
// Invariants: each finding names whom it is about, what is wrong and what mends
// it; what could not be looked at is said and is not taken for health; a cluster
// that cannot be reached is itself a finding, and the machine is looked at still.
package doctor

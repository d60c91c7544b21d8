// Package lab is a laboratory of machines for tests: empty computers in
// namespaces, joined by a switch that leads nowhere, which a test furnishes with
// programs, and stops, kills, cuts off, slows down and starts again.
//
// Job: machines, the programs a test starts on them, waiting for what they say, an
// administrator who writes and remembers what was acknowledged.
//
// Not its job: how a machine is made (machine), what runs on it.
//
// Invariants: a machine and all that runs on it ends with its test; no packet
// leaves a lab; two labs never meet, whatever their machines' names and addresses.
package lab

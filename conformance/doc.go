// Command conformance lets the official end-to-end suite judge a cluster: it
// builds the suite and the images its pods run, brings up a cluster of the
// sampan binary, runs the specs, and writes what passed and what failed.
//
// It is a module of its own, so that the suite's packages never become ours.
// The suite is taken as published: no spec is changed, left out or helped.
//
// Invariants: the suite and its pods see only the cluster's own switch, which
// has no uplink; images carry registry names but come from this computer; a run
// that was cut short still leaves the results of the specs that ended.
package main

// Command interop runs programs that nobody here wrote on a cluster of the
// sampan binary, and asks what their users would ask: did it install, does it
// work, did it go without a trace. The programs are Helm, metrics-server,
// cert-manager and prometheus-operator.
//
// It is a module of its own, and so is each program below programs/, which has
// the versions of its dependencies that its makers published. Programs, charts
// and manifests are taken as published; where a flag or a value differs from
// their default, the act that gives it says why.
//
// Not its job: what the official conformance suite judges (conformance/), and
// scenes of sampan alone (e2e/).
//
// Invariants: nothing is sent but to 127.0.0.1 and inside the cluster's own
// namespaces; images carry the names that manifests ask for but come from this
// computer; each program runs on what the one before left, which is nothing.
package main

// Package apiserver is the gate: the one way into the cluster's state.
//
// Job: put the parts together: filters before, handlers behind; serve them over
// TLS; give the parts of this process the same by function call; keep the
// namespaces and the service every cluster has.
//
// Not its job: any verb (rest), who is who and may what (authn, authz), what is
// stored where (storage).
//
// Invariants: every request is known by its Info and its user before a handler
// sees it; every answer carries an Audit-Id; a panic is one request's 500.
package apiserver

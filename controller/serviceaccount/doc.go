// Package serviceaccount keeps the ServiceAccount default in every active namespace.
//
// Job: make it when a namespace comes and make it again when it is deleted.
//
// Not its job: tokens of accounts, what accounts may do.
//
// Invariants: an account that exists is never changed.
package serviceaccount

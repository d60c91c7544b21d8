// Package apply keeps metadata.managedFields: who owns which field, and what an
// applied configuration changes.
//
// Job: the implementation of rest.Fields over structured-merge-diff.
//
// Not its job: schemas (openapi), storing (rest).
//
// Invariants: a field manager is made when a kind, version and subresource is
// first written, and kept; objects of the caller are changed only in their
// managedFields.
package apply

// Package apply keeps metadata.managedFields: who owns which field, and what an
// applied configuration changes.
//
// Job: the implementation of rest.Fields over structured-merge-diff.
//
// Not its job: schemas (openapi), storing (rest).
package apply

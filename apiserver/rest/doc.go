// Package rest is the machinery behind every resource URL: it turns requests
// into reads and writes of the store and records into answers.
//
// Job: the verbs (get, list, watch, create, update, patch, delete,
// deletecollection) with upstream's semantics, the stored form of objects, the
// wire forms of answers, admission's running order, and the same as function
// calls for the parts of this process.
//
// Not its job: who may do it (authorization is a filter before, or local's),
// what is valid (resource), how bytes are kept (storage).
//
// Invariants: an object that came from a Record is shared and never modified;
// a Record is decoded at most a few times and encoded at most once per wire
// format; every error that reaches a user is a metav1.Status.
package rest

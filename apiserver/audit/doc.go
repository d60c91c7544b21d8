// Package audit puts on record who asked the API server for what.
//
// Job: read the policy (audit.k8s.io/v1), find each request's level, and give
// events of its stages to a log, a webhook, or both, at once or in batches.
//
// Not its job: deciding anything about requests; annotations are put down where
// something is known (request.Annotate).
//
// Invariants: without a policy no request passes here; an event shows bodies
// only at the levels that ask for them; in blocking-strict mode nothing is done
// that could not be put on record first.
package audit

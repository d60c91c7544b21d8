// Package crd serves custom resources: kinds made at run time from
// CustomResourceDefinitions.
//
// Job: from a definition, a resource.Custom per version: decoding, pruning,
// defaults, validation and rules, conversion between versions, columns, scale,
// OpenAPI; and the loop that accepts names, establishes kinds and removes their
// objects when a definition goes.
//
// Not its job: the definition's own rules (resource/customresourcedefinition),
// the verbs (rest), documents (discovery, openapi).
//
// Invariants: what a definition costs to compile is paid once per change of it,
// when first needed; a kind whose definition did not change stays the same
// kind, so that its watches and forms live on; an object is judged in the
// version it was sent in, and stored in the definition's storage version.
//
// Read first: kind.go (a kind), codec.go (its objects), run.go (the loop).
package crd

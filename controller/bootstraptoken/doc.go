// Package bootstraptoken tends to bootstrap tokens.
//
// Job: sign the cluster-info ConfigMap with every token meant for it, so that
// who holds a token can trust what it reads there (NewSigner); delete tokens
// that have expired (NewCleaner).
//
// Not its job: making tokens and cluster-info (bootstrap), letting token holders in (the API server).
//
// Invariants: no signature of a token remains that is gone, expired or not meant for signing.
package bootstraptoken

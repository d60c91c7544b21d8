// Package openapi publishes what the server serves as OpenAPI v2 and v3, and
// holds the schemas of all built-in types.
//
// Job: the definitions generated from the API types (tools/openapi), kept
// compressed in the binary and read only when asked for; the documents
// /openapi/v2, /openapi/v3 and /openapi/v3/PATH; the schemas that server-side
// apply merges by.
//
// Not its job: merging (apply), validation (resource).
//
// Invariants: nothing is kept decompressed that nobody has just asked for, the
// small merge schemas excepted.
package openapi

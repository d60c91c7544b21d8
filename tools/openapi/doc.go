// Command openapi makes the schemas that apiserver/openapi carries: it reads
// the definitions generated from the API types and writes, per Go package of
// types, their OpenAPI v2 form and their structured-merge-diff form, compressed.
//
// See run.sh for how the definitions are generated first.
package main

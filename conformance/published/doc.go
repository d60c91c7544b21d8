// Package published runs the suite that Kubernetes publishes for what keeps its
// objects, k8s.io/apiserver/pkg/storage/testing, on our stores.
//
// The suite speaks another contract than ours: objects, predicates and page
// tokens instead of bytes, ranges and revisions. The adapter in the tests says
// the one in terms of the other, as apiserver/rest does for real requests.
//
// Run it with `make published`. It is a module of its own, so that the suite's
// packages never become ours, and therefore no part of `make test`.
package published

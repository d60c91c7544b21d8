// Package published runs the suite that Kubernetes publishes for what keeps its
// objects, k8s.io/apiserver/pkg/storage/testing, on our stores.
//
// The suite speaks another contract than ours: objects, predicates and page
// tokens instead of bytes, ranges and revisions. The adapter in the tests says
// the one in terms of the other, as apiserver/rest does for real requests.
//
// Run it with `go test .` here. ListInconsistentContinuation over a cache fails
// now and then, for a reason not found yet; until it is, this is no part of
// `make test`.
package published

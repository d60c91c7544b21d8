// Package aggregate makes other API servers part of this one, as APIServices
// name them.
//
// Job: an APIService for every group and version served here; whether the
// servers that others name answer, told in their conditions; passing requests
// on to them in the name of who asks, proven by the front proxy's certificate;
// adding what they serve to discovery and OpenAPI; and the ConfigMap from which
// they learn whom to trust.
//
// Not its job: the APIService's rules (resource/apiservice), authentication and
// authorization, which were done before a request comes here.
//
// Invariants: nothing a client sends can pass as another's identity; a server
// that does not answer delays nobody but those who ask for it, and is left out of
// the plain discovery after Config.Quarantine, so that namespaces can end.
package aggregate

// Package rootca publishes the cluster's root certificate to every namespace.
//
// Job: keep the ConfigMap kube-root-ca.crt, which pods mount beside their
// tokens, in every active namespace, and restore it when it is changed.
//
// Not its job: making the certificate.
//
// Invariants: it writes only ConfigMaps of that one name.
package rootca

// Package cli is what a person types: sampan up, down, ls, exec, kubeconfig,
// image, version, server, and kubectl.
//
// Job: words and flags into calls of other rooms; progress; errors that say
// what to do.
//
// Not its job: any of what it asks for.
package cli

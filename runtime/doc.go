// Package runtime keeps a containerd running for the node.
//
// Job: write containerd's configuration, run containerd as a child process made
// from this very binary, start it again when it dies, and say when its CRI
// socket answers.
//
// Not its job: containerd itself (runtime/daemon), what runs in it (kubelet),
// images (runtime/image makes them, runtime/store puts them in).
//
// Invariants: only the process started here is ever signalled. Containers
// belong to their shims, so neither the end of containerd nor the end of this
// program ends a container.
package runtime

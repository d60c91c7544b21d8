// Package image makes container images without a registry.
//
// Job: layers and images from files, from the running binary and from Debian
// packages; archives in and out; a loopback registry and the files that point
// containerd at it.
//
// Not its job: the images of a node (runtime/store), pulling.
//
// Invariants: the same input gives the same digest: entries are sorted and no
// time of day, user name or host name enters a layer. Layers are not
// compressed: they travel within one computer, where compressing costs more
// than copying.
package image

// Package cni is Sampan's CNI plugin: it connects one container's network
// namespace to the node's bridge.
//
// Job: CNI's ADD, DEL, CHECK, STATUS and GC (CNI specification 1.1): a veth
// pair, an address of the node's pod range, hairpin, routes, and the
// container's host ports as elements of nftables maps.
//
// Not its job: the range itself, the overlay and masquerading (package
// network); services (proxy).
//
// Invariants: an address is held by at most one container; what ADD made, DEL
// with the same container and interface takes away, any number of times. All
// state is under Config.StateDir, one small file an attachment, so that
// nothing leaks over a reboot: state of another boot is forgotten.
package cni

// Package nodeipam hands every node its range of pod addresses.
//
// Job: set spec.podCIDR and podCIDRs of nodes that have none, from the
// cluster's ranges, and take ranges back when nodes are deleted.
//
// Not its job: routes to those ranges (the network), addresses of single pods.
//
// Invariants: no range is handed out twice at a time; a node's range, once set,
// is never changed.
package nodeipam

// Package network makes a node's pods reachable: by each other, from other
// nodes, and out of the cluster.
//
// Job: the CNI configuration of this node's pod range, the bridge, the overlay
// (VXLAN or host routes to the other nodes' ranges) and masquerading.
//
// Not its job: the plugin executed for each pod (network/cni), services (proxy).
//
// Invariants: the CNI configuration appears only once the data path is ready,
// so a node is not Ready before its pods can be reached; routes and neighbours
// follow Node objects by difference; what this package made is recognised by
// its names (bridge, vxlan link, nftables table, route protocol) and nothing
// else is touched.
package network

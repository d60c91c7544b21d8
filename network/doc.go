// Package network makes a node's pods reachable: by each other, from other
// nodes, and out of the cluster.
//
// Job: flannel's contract, once. Network runs it inside a node, with the CNI
// configuration of this node's pod range and the bridge; Flannel runs it as the
// program flanneld, for the plugins that read subnet.env. Both have the same
// backends (VXLAN, host routes, packets in UDP), the same leases (nodes'
// annotations, etcd) and the same masquerading.
//
// Not its job: the plugins executed for each pod (network/cni), services (proxy).
//
// Invariants: what pods need to be connected (the CNI configuration,
// subnet.env) appears only once the data path is ready, so a node is not Ready
// before its pods can be reached; routes, neighbours and forwarding entries are
// compared with what the kernel holds, so that what somebody took away comes
// back; what this package made is recognised by its names (bridge, tunnel,
// nftables table, route protocol) and nothing else is touched.
package network

// Package proxy sends connections to services to their endpoints.
//
// Job: ClusterIPs, external IPs, load-balancer addresses, node ports, session
// affinity and traffic policies of Services and their EndpointSlices, as a few
// nftables maps: one lookup a connection, whatever the number of services.
//
// Not its job: which endpoints a service has (controllers), host ports and
// masquerading of pods (network), names (dns).
//
// Invariants: Compile is pure and of one service; what is in the kernel is
// changed by difference, in one transaction a change, and never read back to
// learn what is there. One table, "sampan-proxy", is ours; it outlives the
// process, so that services go on while it restarts.
package proxy

// Package node puts a node together: runtime, kubelet, network and proxy.
//
// Job: wiring, and the order in which things start and stop.
//
// Not its job: any decision about objects.
package node

// Package nodelifecycle watches the heartbeats of nodes and taints the ones that fail.
package nodelifecycle

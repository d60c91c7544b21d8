// Package daemonset keeps one pod of every DaemonSet on every node that fits it.
//
// Job: make and delete pods node by node, replace pods of old templates in
// rolling updates, keep templates as ControllerRevisions, and report the status.
//
// Not its job: binding pods (the scheduler; each pod names its one node by affinity).
//
// Invariants: a node gets no second pod while its first is there, ending ones
// included, save for the surge of an update; an update never takes more nodes
// out of service than it may.
package daemonset

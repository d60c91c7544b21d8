// Package machine makes computers out of namespaces, so that many nodes run on
// one.
//
// Job: a switch without an uplink; machines on it, each with its own network,
// mounts, process ids, host name, IPC and cgroups; starting, entering, stopping
// and removing them; and forwarding ports of 127.0.0.1 into them.
//
// Not its job: what runs in a machine.
//
// Invariants:
//   - No packet leaves the switch: it has no uplink and no route to anywhere.
//   - All traces of a machine carry its name, and Delete removes them: one
//     network namespace, one switch port, one cgroup per hierarchy, one directory.
//   - A process is ours only if its id and its start time are those we wrote
//     down; nothing else is ever signalled.
//   - A machine does not write this computer's own vm.* and kernel.* settings.
//
// Read first: spec.go, start.go, init.go (what happens inside).
package machine

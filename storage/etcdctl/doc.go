// Package etcdctl is the programs etcdctl and etcdutl.
//
// Job: upstream's commands of the third version, put together from etcd's own
// command packages; the words and flags of the second version, spoken to the
// keys API over HTTP; the choice between the two.
//
// Not its job: the server, and what its answers mean.
//
// Invariants: a Main here is a whole program: upstream's commands end the
// process themselves when they fail, so nothing else may run beside them.
package etcdctl

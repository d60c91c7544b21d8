// Package etcd keeps records in etcd: in this process, as one member or as part
// of a Raft cluster, or elsewhere over the network.
//
// Job: Server runs an etcd member inside the process; Store is storage.Store
// over a Server (calling it as a Go API) or over the network; Compactor forgets
// old revisions as upstream's API servers do, in step with them; Main is the
// etcd program.
//
// Not its job: caching, what the values mean, making certificates.
//
// Invariants: both kinds of Store differ only in their backend; every
// translation between records and etcd's requests is in txn.go. Nothing etcd
// does ends the process: its fatal errors end Run.
package etcd

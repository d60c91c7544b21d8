// Package storage is the contract between the API server and what keeps its
// facts: keys, bytes and revisions.
//
// Job: the Store interface and its vocabulary; the contract suite every
// implementation passes is in storage/storagetest.
//
// Not its job: what the bytes mean. Upstream's layout and encoding
// (/registry/…, "k8s\0" envelope) are the API server's affair.
//
// Implementations: mem (in memory, for tests and throw-away clusters), etcd (in
// process or external), cache (any other Store's recent facts, in memory, with
// a log of changes).
//
// Invariants: a Record never changes after it was handed out. Revisions grow by
// at least one with every write, over all keys together. A watcher sees every
// change of its range once, in the order of revisions.
package storage

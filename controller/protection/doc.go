// Package protection keeps what storage objects are in use.
//
// Job: a finalizer on claims, volumes and attribute classes, taken off a
// deleted one when nothing uses it any more.
//
// Not its job: binding (volumebinder), deleting what a volume holds.
//
// Invariants: before a finalizer goes, the server's own copy of the users is
// asked, for a mirror may lag behind.
package protection

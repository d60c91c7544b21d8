// Package keys is the keys API of etcd's second version, kept in the third.
//
// Job: /v2/keys, /v2/members, /v2/machines and /v2/stats over HTTP, with
// upstream's answers, errors, indexes and waits; expiry of what has a time to
// live. Not its job: listening, and who may ask: when the third version has
// users, everybody is refused, since the second would go round them.
//
// Invariants: a change is one transaction, which fails unless nothing else has
// changed since what it was decided upon was read; so indexes have no gaps, on
// however many members. decide.go is pure.
//
// Under Prefix are the index ("i"), the nodes ("n" and their path), the last
// changes ("e/" and their index) and the times of expiry ("t/", time and path).
package keys

// Package balance spreads TCP connections over the API servers of a cluster.
//
// Job: listening, choosing a server for each connection, asking every server
// for its readiness over TLS, closing connections to servers that no longer
// answer so that their clients come again, remembering the list of servers for
// a start without any of those it began with.
//
// Not its job: what is said on a connection, which is not looked at; finding the
// servers (node does).
//
// Invariants: a connection goes to a server that is ready if one is; where none
// is, to one that answers, because it still has what it keeps in memory. No
// connection is closed unless a better server is known.
package balance

// Package garbagecollector deletes what no owner holds any longer.
//
// Job: know the owners of all objects of all resources that the server serves,
// delete objects whose owners are all gone, and carry out deletions in the
// foreground (dependents first) and with orphans (dependents let go).
//
// Not its job: deciding who owns what (those who make objects).
//
// Invariants: nothing is deleted on the word of a mirror alone: that an owner is
// gone is asked of the server, as is the object itself; and nothing is deleted
// while it is unknown where to ask, because discovery failed or the owner's
// kind is not served.
package garbagecollector

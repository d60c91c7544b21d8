// Package cache keeps the recent facts of another Store in memory: the latest
// records of every resource, and a log of their changes.
//
// Job: serve reads and watches of registered resources without asking the store
// behind for more than its revision. One watch of the whole prefix feeds
// everything; a watcher is a cursor into its resource's log, woken only by
// changes of what it follows; consistent reads wait until the cache has seen
// what the store has acknowledged.
//
// Not its job: writing (it passes writes on), what the bytes mean, history
// beyond its logs (it asks the store behind).
//
// Invariants:
//   - a resource's tree is its state as of max(the cache's progress, the
//     resource's last change), with no change missing and none too many;
//   - a log holds every change above its base, in order; who needs older ones
//     gets ErrCompacted;
//   - everyone, the writer included, shares one Record per version;
//   - nothing ticks while nobody waits.
//
// Read first: space.go (one resource), then follow.go (how it is fed), then
// watch.go.
package cache

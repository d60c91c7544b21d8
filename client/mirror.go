package client

import "context"

// Reader is what actors read of a kind: all its objects, in memory, as the
// server last told. Objects are shared.
type Reader[T any] interface {
	Get(namespace, name string) (*T, bool)
	// List returns all objects of a namespace, "" for all, in no order.
	List(namespace string) []*T
	// By returns the objects that the named index files under value.
	By(index, value string) []*T
	// Synced says whether the first list has arrived.
	Synced() bool
}

// Watchable is a Reader that tells of changes.
type Watchable[T any] interface {
	Reader[T]
	// OnChange calls fn for every change, one at a time, in order; for the
	// objects already there fn is called with old nil. fn must be quick.
	// new is nil when the object is gone. resync calls do not happen.
	OnChange(fn func(old, new *T))
	// Index adds an index before the mirror runs; adding one of the same name again has no effect.
	Index(name string, keys func(*T) []string)
	// WaitSynced waits for the first list.
	WaitSynced(ctx context.Context) error
}

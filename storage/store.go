package storage

import (
	"context"
	"errors"
	"fmt"
)

// Store keeps records under keys, in order, with a history of revisions.
// All methods are safe for concurrent use and return when ctx ends.
type Store interface {
	// Rev returns a revision at least as new as every write acknowledged, by
	// anyone, before the call began: a read at or after it is consistent.
	Rev(ctx context.Context) (int64, error)

	// Get returns the record at key, no older than revision atLeast; 0 asks for
	// a consistent read. ErrNotFound if there is none.
	Get(ctx context.Context, key string, atLeast int64) (*Record, error)

	// List returns the records whose keys begin with prefix, in key order.
	List(ctx context.Context, prefix string, o ListOptions) (*Page, error)

	// Create stores value at a key that has none. ErrExists if it has. A ttl
	// above 0, in seconds, makes the record vanish some time after.
	Create(ctx context.Context, key string, value []byte, ttl int64) (*Record, error)

	// Update replaces the record at key if its revision is expect. Otherwise it
	// returns a *ConflictError with the record that is there, or ErrNotFound.
	Update(ctx context.Context, key string, value []byte, expect, ttl int64) (*Record, error)

	// Delete removes the record at key if its revision is expect, and returns it
	// with Rev set to the revision of the deletion. Errors as Update.
	Delete(ctx context.Context, key string, expect int64) (*Record, error)

	// Watch delivers the changes of keys that begin with prefix, from the first
	// after revision o.After. ErrCompacted if that is no longer known.
	Watch(ctx context.Context, prefix string, o WatchOptions) (Watcher, error)
}

// Compactor is a Store that can forget its history.
type Compactor interface {
	// Compact makes history before rev unavailable: lists and watches there
	// return ErrCompacted.
	Compact(ctx context.Context, rev int64) error
}

// Match says how List reads ListOptions.Rev.
type Match uint8

// The ways to read a revision.
const (
	Latest  Match = iota // Rev is ignored: a consistent read
	AtLeast              // any state no older than Rev; 0 takes what is at hand
	AtExact              // the state as of Rev; ErrCompacted when it is gone
)

// ListOptions bound a List.
type ListOptions struct {
	Rev   int64
	Match Match
	After string // only keys above this one; "" for all
	Limit int    // at most so many records; 0 for all
	Index string // only records that index Index files under Value; "" for all.
	Value string // Stores without that index return ErrNoIndex.
}

// Page is the answer to a List.
type Page struct {
	Records []*Record
	Rev     int64 // the state the records belong to
	More    bool  // there are records after the last one
	// Remaining is how many records follow the last one, -1 if not known.
	Remaining int64
}

// WatchOptions choose the changes a Watch delivers.
type WatchOptions struct {
	After    int64  // deliver changes of revisions above this one
	Progress bool   // deliver Progress events too, every few seconds while idle, when there is progress
	Index    string // only changes whose new or previous record index Index files under Value;
	Value    string // a change that leaves or enters that value is delivered as it is
	// NoPrev says the caller knows the state before each change: Prev may be nil
	// and a Deleted record be without Value.
	NoPrev bool
}

// KeyIndex is an index every Store with indexes has: a record is filed under
// its own key, for those who watch one object.
const KeyIndex = "key"

// ProgressRequester is a Watcher that can be asked how far it is, instead of
// being waited for.
type ProgressRequester interface {
	// RequestProgress makes Next deliver a Progress event soon, unless changes
	// are under way that say the same or more.
	RequestProgress(ctx context.Context)
}

// Watcher is a cursor into the changes of a range.
type Watcher interface {
	// Next waits for changes and returns at least one, in order. It returns
	// ErrCompacted when the watcher fell so far behind that changes were lost,
	// and ctx's error when it ends. The slice is valid until the next call.
	Next(ctx context.Context) ([]Event, error)
	// Stop frees the watcher; a Next under way returns ErrStopped.
	Stop()
}

// EventType says what happened to a key.
type EventType uint8

// The kinds of change.
const (
	Put      EventType = iota // created (Prev nil) or replaced
	Deleted                   // Record is the last version with Rev the deletion's revision
	Progress                  // nothing: all changes up to Rev were delivered
)

// Event is one change.
type Event struct {
	Type   EventType
	Record *Record
	Prev   *Record // the version before, nil for a creation or when not known
	Rev    int64
}

// Errors of a Store.
var (
	ErrNotFound  = errors.New("key not found")
	ErrExists    = errors.New("key exists")
	ErrCompacted = errors.New("required revision has been compacted")
	ErrFuture    = errors.New("required revision is a future revision")
	ErrStopped   = errors.New("watcher stopped")
	ErrNoIndex   = errors.New("no such index")
	ErrTooLarge  = errors.New("value is too large")
)

// ConflictError says that a record was not at the expected revision.
type ConflictError struct {
	Current *Record // what is there
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: revision is %d", e.Current.Key, e.Current.Rev)
}

// CompactedError is an ErrCompacted of a store that knows from where on its
// history goes.
type CompactedError struct {
	Base int64 // every change above this revision is known
}

func (e *CompactedError) Error() string { return ErrCompacted.Error() }

// Is makes the error an ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

type formsKey struct{}

// WithForms lets a writer give the record of his write its derived forms: fn is
// called once with the record, its Rev known, before anybody else can see it. A
// Store that hands the record to others honours it; see FormsOf.
func WithForms(ctx context.Context, fn func(*Record)) context.Context {
	return context.WithValue(ctx, formsKey{}, fn)
}

// FormsOf returns what WithForms put into ctx, or nil.
func FormsOf(ctx context.Context) func(*Record) {
	fn, _ := ctx.Value(formsKey{}).(func(*Record))
	return fn
}

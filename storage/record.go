package storage

import "sync/atomic"

// Slots is how many derived forms a Record can hold; the API server numbers them.
const Slots = 8

// Record is one version of one key. Records are shared by everyone who reads
// that version and must not be modified; a derived form (the decoded object,
// its JSON, …) is made at most a few times and kept once.
type Record struct {
	Key   string
	Value []byte // as stored
	Rev   int64  // the revision that wrote this version
	// Stale says that the value is stored in a form that is outdated, such as
	// encrypted with an old key: a write, even of the same, brings it up to date.
	Stale bool

	forms [Slots]atomic.Pointer[any]
}

// Form returns the derived form in slot, made by mk when there is none yet. Two
// callers at once may both make it; all callers get the same one.
func (r *Record) Form(slot int, mk func(*Record) (any, error)) (any, error) {
	if f := r.forms[slot].Load(); f != nil {
		return *f, nil
	}
	v, err := mk(r)
	if err != nil {
		return nil, err
	}
	if r.forms[slot].CompareAndSwap(nil, &v) {
		return v, nil
	}
	return *r.forms[slot].Load(), nil
}

// SetForm keeps v as the form in slot unless there is one already: a writer who
// holds the decoded object saves its readers the decoding.
func (r *Record) SetForm(slot int, v any) { r.forms[slot].CompareAndSwap(nil, &v) }

// DropForm forgets the form in slot, to save memory.
func (r *Record) DropForm(slot int) { r.forms[slot].Store(nil) }

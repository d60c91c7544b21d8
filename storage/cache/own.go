package cache

import (
	"bytes"
	"slices"
	"sync"

	"github.com/sampan-dev/sampan/storage"
)

// own brings together the record a writer gets for his write and the one the
// watch brings for the same version, whichever comes first: so that the forms
// the writer has (the decoded object) serve all readers.
type own struct {
	mu      sync.Mutex
	writing map[string][]*write       // under way, by key
	written map[int64]*storage.Record // done, but the watch has not brought it
	seen    int64                     // what the watch has brought
}

// write is one write under way.
type write struct {
	key    string
	value  []byte
	del    bool
	forms  func(*storage.Record)
	record *storage.Record // what the watch brought for it
}

func (o *own) begin(w *write) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing == nil {
		o.writing, o.written = map[string][]*write{}, map[int64]*storage.Record{}
	}
	o.writing[w.key] = append(o.writing[w.key], w)
}

// end returns the record to use for the store's answer to w, nil if it failed.
func (o *own) end(w *write, r *storage.Record) *storage.Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ws := slices.DeleteFunc(o.writing[w.key], func(x *write) bool { return x == w }); len(ws) > 0 {
		o.writing[w.key] = ws
	} else {
		delete(o.writing, w.key)
	}
	if r == nil {
		return nil
	}
	if w.record != nil && w.record.Rev == r.Rev {
		return w.record
	}
	if w.forms != nil {
		w.forms(r)
	}
	if r.Rev > o.seen {
		o.written[r.Rev] = r
	}
	return r
}

// see returns the record to use for the version r that the watch brought.
func (o *own) see(r *storage.Record, del bool) *storage.Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = max(o.seen, r.Rev)
	if mine := o.written[r.Rev]; mine != nil && mine.Key == r.Key {
		delete(o.written, r.Rev)
		return mine
	}
	for _, w := range o.writing[r.Key] {
		if w.record == nil && w.del == del && (del || bytes.Equal(w.value, r.Value)) {
			if w.forms != nil {
				w.forms(r)
			}
			w.record = r
			break
		}
	}
	return r
}

// pass says that the watch brought everything up to rev.
func (o *own) pass(rev int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = max(o.seen, rev)
	for r := range o.written {
		if r <= rev {
			delete(o.written, r)
		}
	}
}

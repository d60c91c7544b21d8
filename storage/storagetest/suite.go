// Package storagetest is the contract of storage.Store as tests.
//
// Job: Run, the suite every implementation passes, and Bench, the figures every
// implementation is measured by.
//
// Not its job: what only one implementation does (indexes, leases, recovery).
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/storage"
)

// patience bounds how long a test waits for what must happen.
const patience = 20 * time.Second

// Prefix is below what every tested store must keep.
const Prefix = "/registry/things/"

// Run tests the stores that mk makes. Each must be fresh, with nothing below
// Prefix, and is used until the test given to mk ends.
func Run(t *testing.T, mk func(t *testing.T) storage.Store) {
	for _, c := range []struct {
		name string
		fn   func(t *testing.T, s storage.Store)
	}{
		{"create", testCreate},
		{"update", testUpdate},
		{"delete", testDelete},
		{"ttl", testTTL},
		{"too large", testTooLarge},
		{"get at least", testGetAtLeast},
		{"list", testList},
		{"list revisions", testListRevisions},
		{"list pages of one revision", testPaging},
		{"forms", testForms},
		{"watch", testWatch},
		{"watch from a revision", testWatchFrom},
		{"watch prefix", testWatchPrefix},
		{"watch progress", testWatchProgress},
		{"watch stop", testWatchStop},
		{"watch context", testWatchContext},
		{"many watchers", testManyWatchers},
		{"compaction", testCompaction},
		{"consistent", testConsistent},
		{"cancelled", testCancelled},
		{"concurrent writers", testModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.fn(t, mk(t)) })
	}
}

func key(format string, args ...any) string { return Prefix + fmt.Sprintf(format, args...) }

// The helpers below fail the test rather than return errors.

func create(t *testing.T, s storage.Store, k, v string) *storage.Record {
	t.Helper()
	r, err := s.Create(t.Context(), k, []byte(v), 0)
	if err != nil {
		t.Fatalf("create %s: %v", k, err)
	}
	return r
}

func update(t *testing.T, s storage.Store, k, v string, expect int64) *storage.Record {
	t.Helper()
	r, err := s.Update(t.Context(), k, []byte(v), expect, 0)
	if err != nil {
		t.Fatalf("update %s: %v", k, err)
	}
	return r
}

func remove(t *testing.T, s storage.Store, k string, expect int64) *storage.Record {
	t.Helper()
	r, err := s.Delete(t.Context(), k, expect)
	if err != nil {
		t.Fatalf("delete %s: %v", k, err)
	}
	return r
}

func list(t *testing.T, s storage.Store, prefix string, o storage.ListOptions) *storage.Page {
	t.Helper()
	p, err := s.List(t.Context(), prefix, o)
	if err != nil {
		t.Fatalf("list %s %+v: %v", prefix, o, err)
	}
	return p
}

func watch(t *testing.T, s storage.Store, prefix string, o storage.WatchOptions) storage.Watcher {
	t.Helper()
	w, err := s.Watch(t.Context(), prefix, o)
	if err != nil {
		t.Fatalf("watch %s %+v: %v", prefix, o, err)
	}
	t.Cleanup(w.Stop)
	return w
}

func rev(t *testing.T, s storage.Store) int64 {
	t.Helper()
	r, err := s.Rev(t.Context())
	if err != nil {
		t.Fatalf("rev: %v", err)
	}
	return r
}

// next returns the following n changes, leaving progress aside.
func next(t *testing.T, w storage.Watcher, n int) []storage.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []storage.Event
	for len(got) < n {
		evs, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("next after %d of %d changes: %v", len(got), n, err)
		}
		for _, e := range evs {
			if e.Type != storage.Progress {
				got = append(got, e)
			}
		}
	}
	if len(got) != n {
		t.Fatalf("got %d changes, want %d: %s", len(got), n, describe(got))
	}
	return got
}

func describe(evs []storage.Event) string {
	s := ""
	for _, e := range evs {
		s += " " + one(e)
	}
	return s
}

func one(e storage.Event) string {
	switch {
	case e.Type == storage.Progress:
		return fmt.Sprintf("progress@%d", e.Rev)
	case e.Type == storage.Deleted:
		return fmt.Sprintf("deleted %s=%s@%d", e.Record.Key[len(Prefix):], e.Record.Value, e.Rev)
	case e.Prev == nil:
		return fmt.Sprintf("created %s=%s@%d", e.Record.Key[len(Prefix):], e.Record.Value, e.Rev)
	}
	return fmt.Sprintf("updated %s=%s@%d", e.Record.Key[len(Prefix):], e.Record.Value, e.Rev)
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error is %v, want %v", what, err, want)
	}
}

func wantConflict(t *testing.T, what string, err error, current *storage.Record) {
	t.Helper()
	var c *storage.ConflictError
	if !errors.As(err, &c) {
		t.Fatalf("%s: error is %v, want a conflict", what, err)
	}
	same(t, what+": current", c.Current, current)
}

func same(t *testing.T, what string, got, want *storage.Record) {
	t.Helper()
	if got == nil || want == nil {
		if got != want {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
		return
	}
	if got.Key != want.Key || string(got.Value) != string(want.Value) || got.Rev != want.Rev {
		t.Fatalf("%s: got %s=%s@%d, want %s=%s@%d", what, got.Key, got.Value, got.Rev, want.Key, want.Value, want.Rev)
	}
}

func keys(p *storage.Page) string {
	s := ""
	for _, r := range p.Records {
		s += " " + r.Key[len(Prefix):] + "=" + string(r.Value)
	}
	return s
}

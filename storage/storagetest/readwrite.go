package storagetest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/storage"
)

func testCreate(t *testing.T, s storage.Store) {
	before := rev(t, s)
	r := create(t, s, key("a"), "1")
	if r.Rev <= before || r.Key != key("a") || string(r.Value) != "1" {
		t.Fatalf("created %+v after revision %d", r, before)
	}
	got, err := s.Get(t.Context(), key("a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "get", got, r)
	_, err = s.Create(t.Context(), key("a"), []byte("2"), 0)
	wantErr(t, "create again", err, storage.ErrExists)
	_, err = s.Get(t.Context(), key("b"), 0)
	wantErr(t, "get of nothing", err, storage.ErrNotFound)
}

func testUpdate(t *testing.T, s storage.Store) {
	r1 := create(t, s, key("a"), "1")
	r2 := update(t, s, key("a"), "2", r1.Rev)
	if r2.Rev <= r1.Rev {
		t.Fatalf("revision went from %d to %d", r1.Rev, r2.Rev)
	}
	_, err := s.Update(t.Context(), key("a"), []byte("3"), r1.Rev, 0)
	wantConflict(t, "stale update", err, r2)
	_, err = s.Update(t.Context(), key("b"), []byte("3"), r1.Rev, 0)
	wantErr(t, "update of nothing", err, storage.ErrNotFound)
	got, err := s.Get(t.Context(), key("a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "get", got, r2)
	if string(r1.Value) != "1" {
		t.Fatalf("the first record changed to %s", r1.Value)
	}
}

func testDelete(t *testing.T, s storage.Store) {
	r1 := create(t, s, key("a"), "1")
	r2 := update(t, s, key("a"), "2", r1.Rev)
	_, err := s.Delete(t.Context(), key("a"), r1.Rev)
	wantConflict(t, "stale delete", err, r2)
	d := remove(t, s, key("a"), r2.Rev)
	if d.Rev <= r2.Rev || string(d.Value) != "2" || r2.Rev == d.Rev {
		t.Fatalf("deleted record is %+v", d)
	}
	_, err = s.Delete(t.Context(), key("a"), r2.Rev)
	wantErr(t, "delete again", err, storage.ErrNotFound)
	_, err = s.Get(t.Context(), key("a"), 0)
	wantErr(t, "get of deleted", err, storage.ErrNotFound)
	r3 := create(t, s, key("a"), "3")
	if r3.Rev <= d.Rev {
		t.Fatalf("created again at %d, deleted at %d", r3.Rev, d.Rev)
	}
}

func testTTL(t *testing.T, s storage.Store) {
	r, err := s.Create(t.Context(), key("brief"), []byte("1"), 1)
	if err != nil {
		t.Fatal(err)
	}
	stays := create(t, s, key("stays"), "1")
	w := watch(t, s, Prefix, storage.WatchOptions{After: stays.Rev})
	e := next(t, w, 1)[0]
	if e.Type != storage.Deleted || e.Record.Key != r.Key || string(e.Record.Value) != "1" {
		t.Fatalf("expiry was seen as %s", one(e))
	}
	_, err = s.Get(t.Context(), key("brief"), 0)
	wantErr(t, "get of expired", err, storage.ErrNotFound)
	if got := keys(list(t, s, Prefix, storage.ListOptions{})); got != " stays=1" {
		t.Fatalf("left:%s", got)
	}
}

func testTooLarge(t *testing.T, s storage.Store) {
	big := bytes.Repeat([]byte("x"), 4<<20)
	_, err := s.Create(t.Context(), key("a"), big, 0)
	wantErr(t, "create", err, storage.ErrTooLarge)
	r := create(t, s, key("a"), "1")
	_, err = s.Update(t.Context(), key("a"), big, r.Rev, 0)
	wantErr(t, "update", err, storage.ErrTooLarge)
}

func testGetAtLeast(t *testing.T, s storage.Store) {
	r := create(t, s, key("a"), "1")
	got, err := s.Get(t.Context(), key("a"), r.Rev)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "get", got, r)
	_, err = s.Get(t.Context(), key("a"), r.Rev+1000)
	wantErr(t, "get of the future", err, storage.ErrFuture)
}

func testList(t *testing.T, s storage.Store) {
	for _, k := range []string{"b/2", "a/1", "b/1", "c/1", "b/3"} {
		create(t, s, key("%s", k), k)
	}
	last := create(t, s, key("ba"), "x")
	cases := []struct {
		name, prefix string
		o            storage.ListOptions
		want         string
		more         bool
		remaining    int64
	}{
		{"all", "", storage.ListOptions{}, " a/1=a/1 b/1=b/1 b/2=b/2 b/3=b/3 ba=x c/1=c/1", false, 0},
		{"prefix", "b/", storage.ListOptions{}, " b/1=b/1 b/2=b/2 b/3=b/3", false, 0},
		{"limit", "b/", storage.ListOptions{Limit: 2}, " b/1=b/1 b/2=b/2", true, 1},
		{"limit of all there is", "b/", storage.ListOptions{Limit: 3}, " b/1=b/1 b/2=b/2 b/3=b/3", false, 0},
		{"after", "b/", storage.ListOptions{After: key("b/1")}, " b/2=b/2 b/3=b/3", false, 0},
		{"after and limit", "b/", storage.ListOptions{After: key("b/1"), Limit: 1}, " b/2=b/2", true, 1},
		{"after a key that is not", "b/", storage.ListOptions{After: key("b/1x")}, " b/2=b/2 b/3=b/3", false, 0},
		{"after the last", "b/", storage.ListOptions{After: key("b/3")}, "", false, 0},
		{"after all", "b/", storage.ListOptions{After: key("z")}, "", false, 0},
		{"none", "z", storage.ListOptions{}, "", false, 0},
	}
	for _, c := range cases {
		p := list(t, s, Prefix+c.prefix, c.o)
		if got := keys(p); got != c.want || p.More != c.more {
			t.Errorf("%s: got%s more=%v, want%s more=%v", c.name, got, p.More, c.want, c.more)
		}
		if p.Remaining != c.remaining && p.Remaining != -1 {
			t.Errorf("%s: %d remaining, want %d", c.name, p.Remaining, c.remaining)
		}
		if p.Rev < last.Rev {
			t.Errorf("%s: revision %d is older than the last write %d", c.name, p.Rev, last.Rev)
		}
	}
	_, err := s.List(t.Context(), Prefix, storage.ListOptions{Index: "no such", Value: "x"})
	wantErr(t, "unknown index", err, storage.ErrNoIndex)
}

func testListRevisions(t *testing.T, s storage.Store) {
	r1 := create(t, s, key("a"), "1")
	r2 := create(t, s, key("b"), "1")
	r3 := update(t, s, key("a"), "2", r1.Rev)
	r4 := remove(t, s, key("b"), r2.Rev)
	for _, c := range []struct {
		rev  int64
		want string
	}{{r1.Rev, " a=1"}, {r2.Rev, " a=1 b=1"}, {r3.Rev, " a=2 b=1"}, {r4.Rev, " a=2"}} {
		p := list(t, s, Prefix, storage.ListOptions{Rev: c.rev, Match: storage.AtExact})
		if got := keys(p); got != c.want || p.Rev != c.rev {
			t.Errorf("as of %d: got%s@%d, want%s", c.rev, got, p.Rev, c.want)
		}
		p = list(t, s, Prefix, storage.ListOptions{Rev: c.rev, Match: storage.AtLeast})
		if got := keys(p); p.Rev < c.rev || p.Rev >= r4.Rev && got != " a=2" {
			t.Errorf("at least %d: got%s@%d", c.rev, got, p.Rev)
		}
	}
	if p := list(t, s, Prefix, storage.ListOptions{Rev: r1.Rev}); keys(p) != " a=2" {
		t.Errorf("latest with a revision: got%s", keys(p))
	}
	list(t, s, Prefix, storage.ListOptions{Match: storage.AtLeast})
	for _, m := range []storage.Match{storage.AtLeast, storage.AtExact} {
		_, err := s.List(t.Context(), Prefix, storage.ListOptions{Rev: r4.Rev + 1000, Match: m})
		wantErr(t, "future", err, storage.ErrFuture)
	}
}

func testPaging(t *testing.T, s storage.Store) {
	const n, limit = 47, 10
	want := ""
	var recs []*storage.Record
	for i := range n {
		recs = append(recs, create(t, s, key("%03d", i), "old"))
		want += " " + recs[i].Key[len(Prefix):] + "=old"
	}
	o := storage.ListOptions{Limit: limit}
	got, left := "", int64(n)
	for {
		p := list(t, s, Prefix, o)
		got += keys(p)
		left -= int64(len(p.Records))
		if p.Remaining != -1 && p.Remaining != left {
			t.Fatalf("after %d records: %d remaining, want %d", n-int(left), p.Remaining, left)
		}
		if o.Rev != 0 && p.Rev != o.Rev {
			t.Fatalf("page of revision %d is of %d", o.Rev, p.Rev)
		}
		if !p.More {
			break
		}
		o.Rev, o.Match, o.After = p.Rev, storage.AtExact, p.Records[len(p.Records)-1].Key
		// The world goes on: the pages must not show it.
		i := n - int(left)
		update(t, s, recs[i].Key, "new", recs[i].Rev)
		remove(t, s, recs[i+1].Key, recs[i+1].Rev)
		create(t, s, key("%03dx", i), "new")
	}
	if got != want {
		t.Fatalf("pages together:%s\nwant:%s", got, want)
	}
}

func testForms(t *testing.T, s storage.Store) {
	ctx := storage.WithForms(t.Context(), func(r *storage.Record) { r.SetForm(0, r.Rev) })
	w := watch(t, s, Prefix, storage.WatchOptions{After: rev(t, s)})
	r, err := s.Create(ctx, key("a"), []byte("1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	e := next(t, w, 1)[0]
	for what, rec := range map[string]*storage.Record{"writer": r, "watcher": e.Record} {
		form, err := rec.Form(0, func(r *storage.Record) (any, error) { return r.Rev, nil })
		if err != nil || form != r.Rev {
			t.Errorf("the %s's record has form %v, %v", what, form, err)
		}
	}
}

func testConsistent(t *testing.T, s storage.Store) {
	for i := range 200 {
		r := create(t, s, key("%d", i), "x")
		if at := rev(t, s); at < r.Rev {
			t.Fatalf("revision %d is older than the acknowledged write %d", at, r.Rev)
		}
		got, err := s.Get(t.Context(), r.Key, 0)
		if err != nil {
			t.Fatalf("get after write: %v", err)
		}
		same(t, "get after write", got, r)
		p := list(t, s, Prefix, storage.ListOptions{})
		if len(p.Records) != i+1 {
			t.Fatalf("list after %d writes has %d records", i+1, len(p.Records))
		}
		// Writes elsewhere move the revision on without a change here.
		if _, err := s.Create(t.Context(), "/elsewhere/"+r.Key, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func testCancelled(t *testing.T, s storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, key("a"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.List(ctx, Prefix, storage.ListOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.Create(ctx, key("a"), nil, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
}

func testCompaction(t *testing.T, s storage.Store) {
	c, ok := s.(storage.Compactor)
	if !ok {
		t.Skip("the store keeps no history that could be compacted")
	}
	var recs []*storage.Record
	for i := range 10 {
		recs = append(recs, create(t, s, key("%d", i), "x"))
	}
	at := recs[6].Rev
	if err := c.Compact(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "compact the future", c.Compact(t.Context(), recs[9].Rev+1000), storage.ErrFuture)
	if err := c.Compact(t.Context(), recs[5].Rev); err != nil {
		t.Errorf("compacting what is gone: %v", err)
	}
	stop := clock.Now().Add(patience)
	for { // a store may forget a little later
		_, err := s.List(t.Context(), Prefix, storage.ListOptions{Rev: recs[2].Rev, Match: storage.AtExact})
		if errors.Is(err, storage.ErrCompacted) {
			break
		}
		if clock.Now().After(stop) {
			t.Fatalf("list of the compacted past: %v", err)
		}
	}
	if p := list(t, s, Prefix, storage.ListOptions{Rev: at, Match: storage.AtExact}); len(p.Records) != 7 {
		t.Errorf("as of the compaction:%s", keys(p))
	}
	w, err := s.Watch(t.Context(), Prefix, storage.WatchOptions{After: recs[2].Rev})
	if err == nil {
		_, err = w.Next(t.Context())
		w.Stop()
	}
	wantErr(t, "watch from the compacted past", err, storage.ErrCompacted)
	next(t, watch(t, s, Prefix, storage.WatchOptions{After: at}), 3)
	if p := list(t, s, Prefix, storage.ListOptions{}); len(p.Records) != 10 {
		t.Errorf("latest:%s", keys(p))
	}
}

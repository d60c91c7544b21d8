package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
)

func testWatch(t *testing.T, s storage.Store) {
	w := watch(t, s, Prefix, storage.WatchOptions{After: rev(t, s)})
	r1 := create(t, s, key("a"), "1")
	r2 := update(t, s, key("a"), "2", r1.Rev)
	r3 := remove(t, s, key("a"), r2.Rev)
	r4 := create(t, s, key("a"), "3")
	got := next(t, w, 4)
	want := fmt.Sprintf(" created a=1@%d updated a=2@%d deleted a=2@%d created a=3@%d", r1.Rev, r2.Rev, r3.Rev, r4.Rev)
	if describe(got) != want {
		t.Fatalf("got%s\nwant%s", describe(got), want)
	}
	same(t, "prev of the update", got[1].Prev, r1)
	same(t, "prev of the deletion", got[2].Prev, r2)
	for i, r := range []*storage.Record{r1, r2, r3, r4} {
		same(t, "record", got[i].Record, r)
	}
}

func testWatchFrom(t *testing.T, s storage.Store) {
	start := rev(t, s)
	var recs []*storage.Record
	for i := range 20 {
		recs = append(recs, create(t, s, key("%02d", i), "x"))
	}
	for i := -1; i < 19; i++ {
		after := start
		if i >= 0 {
			after = recs[i].Rev
		}
		w := watch(t, s, Prefix, storage.WatchOptions{After: after})
		for j, e := range next(t, w, 19-i) {
			same(t, "record", e.Record, recs[i+1+j])
		}
		w.Stop()
	}
	// A watch from a revision to come begins there.
	w := watch(t, s, Prefix, storage.WatchOptions{After: recs[19].Rev + 1})
	create(t, s, key("not seen"), "x")
	seen := create(t, s, key("seen"), "x")
	same(t, "record", next(t, w, 1)[0].Record, seen)
}

func testWatchPrefix(t *testing.T, s storage.Store) {
	at := rev(t, s)
	narrow := watch(t, s, key("ns1/"), storage.WatchOptions{After: at})
	single := watch(t, s, key("ns1/b"), storage.WatchOptions{After: at})
	for _, k := range []string{"ns0/a", "ns1/a", "ns10/a", "ns1/b", "ns2/a", "ns1/c"} {
		create(t, s, key("%s", k), "x")
	}
	want := fmt.Sprintf(" created ns1/a=x@%d created ns1/b=x@%d created ns1/c=x@%d", at+2, at+4, at+6)
	if got := describe(next(t, narrow, 3)); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
	if got := describe(next(t, single, 1)); got != fmt.Sprintf(" created ns1/b=x@%d", at+4) {
		t.Errorf("got%s", got)
	}
}

func testWatchProgress(t *testing.T, s storage.Store) {
	w := watch(t, s, key("here/"), storage.WatchOptions{After: rev(t, s), Progress: true})
	last := create(t, s, key("there"), "1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if p, ok := w.(storage.ProgressRequester); ok {
		p.RequestProgress(ctx)
	}
	for {
		evs, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("no progress to %d: %v", last.Rev, err)
		}
		e := evs[len(evs)-1]
		if e.Type != storage.Progress {
			t.Fatalf("got%s", describe(evs))
		}
		if e.Rev >= last.Rev {
			return
		}
		if p, ok := w.(storage.ProgressRequester); ok {
			p.RequestProgress(ctx)
		}
	}
}

func testWatchStop(t *testing.T, s storage.Store) {
	w := watch(t, s, Prefix, storage.WatchOptions{After: rev(t, s)})
	got := make(chan error, 1)
	run.Detach(t.Context(), "next", func(ctx context.Context) {
		_, err := w.Next(ctx)
		got <- err
	})
	w.Stop()
	select {
	case err := <-got:
		wantErr(t, "next under way", err, storage.ErrStopped)
	case <-clock.NewTimer(patience).C:
		t.Fatal("next did not return")
	}
	_, err := w.Next(t.Context())
	wantErr(t, "next after", err, storage.ErrStopped)
	w.Stop()
}

func testWatchContext(t *testing.T, s storage.Store) {
	w := watch(t, s, Prefix, storage.WatchOptions{After: rev(t, s)})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	run.Detach(ctx, "next", func(ctx context.Context) {
		_, err := w.Next(ctx)
		got <- err
	})
	cancel()
	select {
	case err := <-got:
		wantErr(t, "next", err, context.Canceled)
	case <-clock.NewTimer(patience).C:
		t.Fatal("next did not return")
	}
	// Its caller gave up waiting, not watching.
	r := create(t, s, key("a"), "1")
	same(t, "record", next(t, w, 1)[0].Record, r)
}

func testManyWatchers(t *testing.T, s storage.Store) {
	const watchers, changes = 100, 100
	at := rev(t, s)
	var wg sync.WaitGroup
	for range watchers {
		w := watch(t, s, Prefix, storage.WatchOptions{After: at})
		wg.Add(1)
		run.Detach(t.Context(), "watcher", func(ctx context.Context) {
			defer wg.Done()
			last, n := at, 0
			for n < changes {
				evs, err := w.Next(ctx)
				if err != nil {
					t.Errorf("after %d changes: %v", n, err)
					return
				}
				for _, e := range evs {
					if e.Rev <= last || e.Type != storage.Put {
						t.Errorf("%s came after revision %d", one(e), last)
					}
					last = e.Rev
					n++
				}
			}
		})
	}
	for i := range changes {
		create(t, s, key("%d", i), "x")
	}
	wg.Wait()
}

// testModel lets several writers loose on few keys while watchers build a model
// of the store from what they see. Safety: every model equals the store, every
// change follows from the one before. Liveness: all changes arrive.
func testModel(t *testing.T, s storage.Store) {
	const writers, steps, names = 4, 150, 5
	at := rev(t, s)
	w1 := watch(t, s, Prefix, storage.WatchOptions{After: at})
	var mu sync.Mutex
	acked := map[int64]string{}
	var wg sync.WaitGroup
	for n := range writers {
		wg.Add(1)
		run.Detach(t.Context(), "writer", func(ctx context.Context) {
			defer wg.Done()
			rnd := clock.Rand(uint64(n))
			for i := range steps {
				e, err := step(ctx, s, key("%d", rnd.IntN(names)), fmt.Sprintf("%d-%d", n, i), rnd.IntN(3) == 0)
				if err != nil {
					t.Errorf("step: %v", err)
				}
				if e != "" {
					mu.Lock()
					var rv int64
					fmt.Sscanf(e[lastAt(e)+1:], "%d", &rv)
					acked[rv] = e
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	events := next(t, w1, len(acked))
	checkModel(t, s, events, acked)
	// Who comes later sees the very same story.
	again := next(t, watch(t, s, Prefix, storage.WatchOptions{After: at}), len(acked))
	if describe(again) != describe(events) {
		t.Errorf("a later watcher saw another story")
	}
}

// step makes one change of k, whatever its state, and describes it.
func step(ctx context.Context, s storage.Store, k, v string, del bool) (string, error) {
	cur, err := s.Get(ctx, k, 0)
	var r *storage.Record
	e := storage.Event{}
	switch {
	case errors.Is(err, storage.ErrNotFound):
		r, err = s.Create(ctx, k, []byte(v), 0)
	case err != nil:
		return "", err
	case del:
		e.Type = storage.Deleted
		r, err = s.Delete(ctx, k, cur.Rev)
	default:
		e.Prev = cur
		r, err = s.Update(ctx, k, []byte(v), cur.Rev, 0)
	}
	var c *storage.ConflictError
	switch {
	case errors.As(err, &c), errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrExists):
		return "", nil // another writer was first
	case err != nil:
		return "", err
	}
	e.Record, e.Rev = r, r.Rev
	return one(e), nil
}

func lastAt(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '@' {
			return i
		}
	}
	return -1
}

func checkModel(t *testing.T, s storage.Store, events []storage.Event, acked map[int64]string) {
	t.Helper()
	model := map[string]*storage.Record{}
	var last int64
	for i, e := range events {
		if e.Rev <= last {
			t.Fatalf("%s came after %d", one(e), last)
		}
		last = e.Rev
		if acked[e.Rev] != one(e) {
			t.Fatalf("at %d the writer did %q, the watcher saw %q", e.Rev, acked[e.Rev], one(e))
		}
		if prev := model[e.Record.Key]; prev != nil || e.Prev != nil {
			same(t, "prev of "+one(e), e.Prev, prev)
		}
		if e.Type == storage.Deleted {
			delete(model, e.Record.Key)
		} else {
			model[e.Record.Key] = e.Record
		}
		if i%25 == 0 || i == len(events)-1 {
			p := list(t, s, Prefix, storage.ListOptions{Rev: e.Rev, Match: storage.AtExact})
			if len(p.Records) != len(model) {
				t.Fatalf("as of %d: list has%s, the model has %d", e.Rev, keys(p), len(model))
			}
			for _, r := range p.Records {
				same(t, "listed", r, model[r.Key])
			}
		}
	}
}

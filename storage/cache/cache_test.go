package cache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/cache"
	"github.com/sampan-dev/sampan/storage/mem"
)

const pods = "/registry/pods/"

// byNode files records under what their value says before a colon.
var byNode = map[string]func(*storage.Record) []string{
	"node": func(r *storage.Record) []string {
		node, _, _ := strings.Cut(string(r.Value), ":")
		return []string{node}
	},
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func create(t *testing.T, s storage.Store, key, value string) *storage.Record {
	t.Helper()
	return must[*storage.Record](t)(s.Create(t.Context(), key, []byte(value), 0))
}

func update(t *testing.T, s storage.Store, r *storage.Record, value string) *storage.Record {
	t.Helper()
	return must[*storage.Record](t)(s.Update(t.Context(), r.Key, []byte(value), r.Rev, 0))
}

// next returns the next n changes as "key=value" or "-key".
func next(t *testing.T, w storage.Watcher, n int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var got []string
	for len(got) < n {
		evs, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		for _, e := range evs {
			switch e.Type {
			case storage.Put:
				got = append(got, e.Record.Key[len(pods):]+"="+string(e.Record.Value))
			case storage.Deleted:
				got = append(got, "-"+e.Record.Key[len(pods):])
			}
		}
	}
	return strings.Join(got, " ")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func page(p *storage.Page) string {
	var got []string
	for _, r := range p.Records {
		got = append(got, r.Key[len(pods):]+"="+string(r.Value))
	}
	return strings.Join(got, " ")
}

func indexed(t *testing.T, s storage.Store, cfg cache.Config) *cache.Cache {
	c := start(t, s, cfg)
	c.Register(pods, byNode)
	if err := c.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// Watchers of an index see their own, what enters and what leaves, from the past
// on as well as from now on.
func TestIndex(t *testing.T) {
	c := indexed(t, mem.New(), cache.Config{})
	at := must[int64](t)(c.Rev(t.Context()))
	watch := func(index, value string) storage.Watcher {
		w := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: at, Index: index, Value: value}))
		t.Cleanup(w.Stop)
		return w
	}
	now := watch("node", "n1")
	a := create(t, c, pods+"ns/a", "n1:1")
	b := create(t, c, pods+"ns/b", "n2:1")
	a2 := update(t, c, a, "n1:2")
	update(t, c, a2, "n2:3")
	b2 := update(t, c, b, "n1:2")
	must[*storage.Record](t)(c.Delete(t.Context(), b2.Key, b2.Rev))
	create(t, c, pods+"ns/c", "n1:1")
	story := "ns/a=n1:1 ns/a=n1:2 ns/a=n2:3 ns/b=n1:2 -ns/b ns/c=n1:1"
	want(t, "from now", next(t, now, 6), story)
	want(t, "from the past", next(t, watch("node", "n1"), 6), story)
	want(t, "by key", next(t, watch(storage.KeyIndex, pods+"ns/b"), 3), "ns/b=n2:1 ns/b=n1:2 -ns/b")
	list := func(o storage.ListOptions) *storage.Page {
		return must[*storage.Page](t)(c.List(t.Context(), pods, o))
	}
	want(t, "list n1", page(list(storage.ListOptions{Index: "node", Value: "n1"})), "ns/c=n1:1")
	want(t, "list n2", page(list(storage.ListOptions{Index: "node", Value: "n2"})), "ns/a=n2:3")
	want(t, "list n1 then", page(list(storage.ListOptions{Index: "node", Value: "n1", Rev: a2.Rev, Match: storage.AtExact})), "ns/a=n1:2")
	want(t, "list key", page(list(storage.ListOptions{Index: storage.KeyIndex, Value: pods + "ns/c"})), "ns/c=n1:1")
}

// A writer's record is everybody's record, whichever of the store's answer and
// the watch comes first.
func TestOneRecordPerVersion(t *testing.T) {
	for name, s := range map[string]storage.Store{"mem": mem.New(), "etcd": member(t)} {
		t.Run(name, func(t *testing.T) {
			c := indexed(t, s, cache.Config{})
			w := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: must[int64](t)(c.Rev(t.Context()))}))
			defer w.Stop()
			for i := range 100 {
				calls := 0
				ctx := storage.WithForms(t.Context(), func(r *storage.Record) {
					calls++
					r.SetForm(0, "mine")
				})
				r := must[*storage.Record](t)(c.Create(ctx, fmt.Sprintf("%sns/%d", pods, i), []byte("n1:"), 0))
				d := r
				if i%2 == 0 {
					d = must[*storage.Record](t)(c.Delete(ctx, r.Key, r.Rev))
				}
				var seen []*storage.Record
				for len(seen) == 0 || seen[len(seen)-1].Rev < d.Rev {
					for _, e := range must[[]storage.Event](t)(w.Next(t.Context())) {
						seen = append(seen, e.Record)
					}
				}
				if seen[0] != r || seen[len(seen)-1] != d {
					t.Fatal("the watcher got other records than the writer")
				}
				if calls != len(seen) {
					t.Fatalf("forms were given %d times for %d versions", calls, len(seen))
				}
				if r == d {
					if got := must[*storage.Record](t)(c.Get(t.Context(), r.Key, 0)); got != r {
						t.Fatal("the reader got another record than the writer")
					}
				}
			}
		})
	}
}

// flaky is a store whose watches can be broken and whose past can be lost.
type flaky struct {
	*mem.Store
	mu     sync.Mutex
	feeds  []storage.Watcher
	resume chan struct{}
}

func (f *flaky) Watch(ctx context.Context, prefix string, o storage.WatchOptions) (storage.Watcher, error) {
	f.mu.Lock()
	resume := f.resume
	f.mu.Unlock()
	if resume != nil {
		select {
		case <-resume:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w, err := f.Store.Watch(ctx, prefix, o)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.feeds = append(f.feeds, w)
	return w, err
}

// cut breaks the feed; the returned function lets it be made again.
func (f *flaky) cut() func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resume = make(chan struct{})
	for _, w := range f.feeds {
		w.Stop()
	}
	ch := f.resume
	return func() {
		f.mu.Lock()
		f.resume = nil
		f.mu.Unlock()
		close(ch)
	}
}

// A broken watch goes on where it was: no watcher notices.
func TestFeedBroken(t *testing.T) {
	f := &flaky{Store: mem.New()}
	c := indexed(t, f, cache.Config{})
	a := create(t, c, pods+"a", "1")
	w := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: a.Rev}))
	defer w.Stop()
	resume := f.cut()
	a = update(t, c, a, "2")
	// Meanwhile reads are consistent all the same.
	if got := must[*storage.Record](t)(c.Get(t.Context(), a.Key, 0)); string(got.Value) != "2" {
		t.Errorf("a broken cache serves %s", got.Value)
	}
	resume()
	update(t, c, a, "3")
	want(t, "watch", next(t, w, 2), "a=2 a=3")
}

// When the store forgot what the cache missed, it lists again; who watched what
// did not change goes on, the others must list as well.
func TestFeedCompacted(t *testing.T) {
	f := &flaky{Store: mem.New()}
	c := indexed(t, f, cache.Config{})
	const nodes = "/registry/minions/"
	c.Register(nodes, nil)
	a, kept := create(t, c, pods+"a", "1"), create(t, c, pods+"kept", "1")
	create(t, c, nodes+"n", "1")
	w := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: kept.Rev}))
	defer w.Stop()
	same := must[storage.Watcher](t)(c.Watch(t.Context(), nodes, storage.WatchOptions{After: kept.Rev + 1}))
	defer same.Stop()
	// A consistent read makes sure that the cache has seen all that was written.
	must[*storage.Page](t)(c.List(t.Context(), nodes, storage.ListOptions{}))
	resume := f.cut()
	a = update(t, c, a, "2")
	if err := f.Compact(t.Context(), a.Rev); err != nil {
		t.Fatal(err)
	}
	a = update(t, c, a, "3")
	if err := f.Compact(t.Context(), a.Rev); err != nil {
		t.Fatal(err)
	}
	resume()
	if _, err := w.Next(t.Context()); !errors.Is(err, storage.ErrCompacted) {
		t.Fatalf("the watcher that missed a change got %v", err)
	}
	if err := c.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := must[*storage.Page](t)(c.List(t.Context(), pods, storage.ListOptions{}))
	want(t, "list", page(p), "a=3 kept=1")
	if p.Records[1] != kept {
		t.Error("an unchanged record was replaced, and its forms lost")
	}
	n := create(t, c, nodes+"n2", "1")
	evs := must[[]storage.Event](t)(same.Next(t.Context()))
	if len(evs) != 1 || evs[0].Rev != n.Rev {
		t.Errorf("the watcher of an unchanged resource got %v", evs)
	}
}

// Who falls off the log's end must list again; who follows an index and had no
// changes stays.
func TestSlowWatcher(t *testing.T) {
	c := indexed(t, mem.New(), cache.Config{MaxEvents: 16})
	at := must[int64](t)(c.Rev(t.Context()))
	slow := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: at}))
	quiet := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: at, Index: "node", Value: "quiet"}))
	lost := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: at, Index: "node", Value: "busy"}))
	for i := range 40 {
		create(t, c, fmt.Sprintf("%s%02d", pods, i), "busy:")
	}
	create(t, c, pods+"q", "quiet:")
	// A consistent read makes sure that the cache has seen all.
	must[*storage.Page](t)(c.List(t.Context(), pods, storage.ListOptions{}))
	for name, w := range map[string]storage.Watcher{"slow": slow, "lost": lost} {
		if _, err := w.Next(t.Context()); !errors.Is(err, storage.ErrCompacted) {
			t.Errorf("%s: got %v", name, err)
		}
		w.Stop()
	}
	want(t, "quiet", next(t, quiet, 1), "q=quiet:")
	quiet.Stop()
	var gone *storage.CompactedError
	if _, err := c.Watch(t.Context(), pods, storage.WatchOptions{After: at}); !errors.As(err, &gone) || gone.Base <= at {
		t.Errorf("a watch from before the log: %v does not say where the log begins", err)
	}
	if _, err := c.Watch(t.Context(), pods, storage.WatchOptions{After: at}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("watch from before the log: %v", err)
	}
}

// A resource may come and go while the cache runs.
func TestRegisterLate(t *testing.T) {
	s := mem.New()
	c := start(t, s, cache.Config{})
	r := create(t, c, pods+"a", "n1:")
	c.Register(pods, byNode)
	if err := c.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := must[*storage.Page](t)(c.List(t.Context(), pods, storage.ListOptions{Index: "node", Value: "n1"}))
	want(t, "list", page(p), "a=n1:")
	w := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: r.Rev}))
	defer w.Stop()
	c.Unregister(pods)
	if _, err := w.Next(t.Context()); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("watcher of a resource that went: %v", err)
	}
	want(t, "list", page(must[*storage.Page](t)(c.List(t.Context(), pods, storage.ListOptions{}))), "a=n1:")
}

// Idle watchers hear of progress in time, once, and nothing ticks while there
// is none.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := cache.New(mem.New(), cache.Config{Progress: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c.Register(pods, nil)
		g := run.New(t.Context())
		g.Go("cache", c.Run)
		if err := c.Synced(t.Context()); err != nil {
			t.Fatal(err)
		}
		at := must[int64](t)(c.Rev(t.Context()))
		w := must[storage.Watcher](t)(c.Watch(t.Context(), pods, storage.WatchOptions{After: at, Progress: true}))
		r := create(t, c, "/registry/other", "1")
		began := time.Now()
		evs := must[[]storage.Event](t)(w.Next(t.Context()))
		if len(evs) != 1 || evs[0].Type != storage.Progress || evs[0].Rev != r.Rev {
			t.Errorf("got %+v, want progress to %d", evs, r.Rev)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("progress took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if evs, err := w.Next(ctx); err == nil {
			t.Errorf("got %+v while nothing happened", evs)
		}
		w.Stop()
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := indexed(t, mem.New(), cache.Config{Metrics: reg})
	create(t, c, pods+"a", "n1:")
	must[*storage.Page](t)(c.List(t.Context(), pods, storage.ListOptions{}))
	err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP apiserver_storage_objects Number of stored objects at the time of last check split by kind.
# TYPE apiserver_storage_objects gauge
apiserver_storage_objects{resource="pods"} 1
# HELP apiserver_watch_cache_events_received_total Counter of events received in watch cache broken by resource type.
# TYPE apiserver_watch_cache_events_received_total counter
apiserver_watch_cache_events_received_total{group="",resource="pods"} 1
`), "apiserver_storage_objects", "apiserver_watch_cache_events_received_total")
	if err != nil {
		t.Error(err)
	}
}

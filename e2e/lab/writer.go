package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// patience is how long a writer waits for one answer before it tries anew.
const patience = 2 * time.Second

// Writer makes ConfigMaps through doors, and remembers which were acknowledged,
// and when. It never writes more than a few thousand.
type Writer struct {
	t     testing.TB
	name  string
	doors []*Door
	g     *run.Group

	mu    sync.Mutex
	acked []string
	at    map[*Door][]time.Time // of the acknowledgements
	tried int
}

// Writes begins a writer, which calls what it makes name-1, name-2, …, and ends
// with the test or with Stop. A write that is not answered in time is tried again
// under another name.
func (l *Lab) Writes(name string, doors ...*Door) *Writer {
	l.Helper()
	w := &Writer{t: l.T, name: name, doors: doors, g: run.New(context.Background()), at: map[*Door][]time.Time{}}
	for _, d := range doors {
		w.g.Go("writer "+d.Host, func(ctx context.Context) error {
			for range 3000 {
				w.Write(d)
				if clock.Sleep(ctx, 100*time.Millisecond) != nil {
					return nil
				}
			}
			return nil
		})
	}
	l.Cleanup(w.Stop)
	return w
}

// Stop ends the writer; what it knows stays.
func (w *Writer) Stop() {
	w.g.Stop()
	_ = w.g.Wait()
}

// Write writes once, and says whether that was acknowledged.
func (w *Writer) Write(d *Door) bool {
	w.mu.Lock()
	w.tried++
	name := fmt.Sprintf("%s-%d", w.name, w.tried)
	w.mu.Unlock()
	code, _, err := d.Ask(patience, http.MethodPost, "/api/v1/namespaces/default/configmaps", `{"metadata": {"name": "`+name+`"}}`)
	if err != nil || code != http.StatusCreated {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = append(w.acked, name)
	w.at[d] = append(w.at[d], clock.Now())
	return true
}

// Through waits until every one of the doors has acknowledged a write after
// start, and says how long that took. Without any named, those of the writer.
func (w *Writer) Through(start time.Time, doors ...*Door) time.Duration {
	w.t.Helper()
	if len(doors) == 0 {
		doors = w.doors
	}
	Until(w.t, "writes through every door", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, d := range doors {
			if at := w.at[d]; len(at) == 0 || at[len(at)-1].Before(start) {
				return fmt.Errorf("none of %d through %s", w.tried, d.Host)
			}
		}
		return nil
	})
	return clock.Since(start)
}

// Again writes through a door until it is acknowledged, after Stop.
func (w *Writer) Again(start time.Time, d *Door) time.Duration {
	w.t.Helper()
	Within(w.t, 2*Limit, "a write through "+d.Host, func() error {
		if !w.Write(d) {
			return errors.New("not acknowledged")
		}
		return nil
	})
	return clock.Since(start)
}

// Silence is the longest time since start in which one of the doors acknowledged
// no write.
func (w *Writer) Silence(start time.Time, doors ...*Door) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range doors {
		last := start
		for _, at := range append(slices.Clone(w.at[d]), clock.Now()) {
			if at.After(last) {
				longest, last = max(longest, at.Sub(last)), at
			}
		}
	}
	return longest
}

// Kept checks that what was acknowledged is there, as a consistent read tells.
func (w *Writer) Kept(d *Door) {
	w.t.Helper()
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	d.Get("/api/v1/namespaces/default/configmaps", &list)
	have := map[string]bool{}
	for _, i := range list.Items {
		have[i.Metadata.Name] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.acked {
		if !have[name] {
			w.t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	w.t.Logf("%d of %d writes acknowledged, all there, by %s", len(w.acked), w.tried, d.Host)
}

package storagetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
)

// Fill creates n records of size bytes below Prefix, by several callers.
func Fill(ctx context.Context, s storage.Store, n, size int) error {
	value := make([]byte, size)
	return callers(ctx, 16, n, func(ctx context.Context, i int) error {
		_, err := s.Create(ctx, fmt.Sprintf("%sns/%08d", Prefix, i), value, 0)
		return err
	})
}

// Creates makes n records by so many callers at once; round keeps keys apart.
func Creates(ctx context.Context, s storage.Store, count, n int, round string) error {
	value := make([]byte, 1024)
	return callers(ctx, count, n, func(ctx context.Context, i int) error {
		_, err := s.Create(ctx, fmt.Sprintf("%s%s/%08d", Prefix, round, i), value, 0)
		return err
	})
}

// Updates replaces records n times by so many callers at once, each his own.
func Updates(ctx context.Context, s storage.Store, count, n int, round string) error {
	value := make([]byte, 1024)
	recs := make([]*storage.Record, count)
	for i := range recs {
		r, err := s.Create(ctx, fmt.Sprintf("%s%s/%08d", Prefix, round, i), value, 0)
		if err != nil {
			return err
		}
		recs[i] = r
	}
	var next atomic.Int64
	return callers(ctx, count, count, func(ctx context.Context, i int) error {
		for next.Add(1) <= int64(n) {
			r, err := s.Update(ctx, recs[i].Key, value, recs[i].Rev, 0)
			if err != nil {
				return err
			}
			recs[i] = r
		}
		return nil
	})
}

// Gets reads n times, consistently, by so many callers at once, what Fill made.
func Gets(ctx context.Context, s storage.Store, count, n, filled int) error {
	return callers(ctx, count, n, func(ctx context.Context, i int) error {
		_, err := s.Get(ctx, fmt.Sprintf("%sns/%08d", Prefix, i%filled), 0)
		return err
	})
}

// callers calls fn with 0 to n-1, count at a time, and returns the first error.
func callers(ctx context.Context, count, n int, fn func(ctx context.Context, i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, count)
	for c := range count {
		wg.Add(1)
		run.Detach(ctx, "caller", func(ctx context.Context) {
			defer wg.Done()
			for i := next.Add(1) - 1; i < int64(n) && errs[c] == nil; i = next.Add(1) - 1 {
				errs[c] = fn(ctx, int(i))
			}
		})
	}
	wg.Wait()
	return slices.MaxFunc(errs, func(a, b error) int {
		switch {
		case a == nil && b != nil:
			return -1
		case a != nil && b == nil:
			return 1
		}
		return 0
	})
}

// Fan is the outcome of FanOut.
type Fan struct {
	Delivered int
	Took      time.Duration
	P50, P99  time.Duration // from before the write to the watcher's hands
}

// FanOut lets so many watchers follow so many updates of one record.
func FanOut(ctx context.Context, s storage.Store, watchers, updates int, round string) (Fan, error) {
	r, err := s.Create(ctx, fmt.Sprintf("%s%s/one", Prefix, round), make([]byte, 1024), 0)
	if err != nil {
		return Fan{}, err
	}
	base := clock.Now()
	sent := make([]atomic.Int64, updates)
	first := r.Rev
	var mu sync.Mutex
	var waits []time.Duration
	var wg sync.WaitGroup
	errs := make([]error, watchers)
	for i := range watchers {
		w, err := s.Watch(ctx, Prefix, storage.WatchOptions{After: first})
		if err != nil {
			return Fan{}, err
		}
		wg.Add(1)
		run.Detach(ctx, "watcher", func(ctx context.Context) {
			defer wg.Done()
			defer w.Stop()
			mine := make([]time.Duration, 0, updates)
			for len(mine) < updates {
				evs, err := w.Next(ctx)
				if errs[i] = err; err != nil {
					return
				}
				now := clock.Since(base)
				for range evs {
					mine = append(mine, now-time.Duration(sent[len(mine)].Load()))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, mine...)
		})
	}
	began := clock.Now()
	for i := range updates {
		sent[i].Store(int64(clock.Since(base)))
		if r, err = s.Update(ctx, r.Key, r.Value, r.Rev, 0); err != nil {
			return Fan{}, err
		}
	}
	wg.Wait()
	f := Fan{Delivered: len(waits), Took: clock.Since(began)}
	for _, err := range errs {
		if err != nil {
			return f, err
		}
	}
	slices.Sort(waits)
	f.P50, f.P99 = waits[len(waits)/2], waits[len(waits)*99/100]
	return f, nil
}

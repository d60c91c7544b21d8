package controller

import (
	"context"
	"sync"

	"github.com/sampan-dev/sampan/kit/run"
)

// SlowStart calls fn n times, 1 call at first and twice as many at once each
// time all went well; after the first failing batch it stops. It returns how
// many calls went well and the first error.
//
// So a namespace over its quota costs one refused request, not a thousand.
func SlowStart(ctx context.Context, n int, fn func(ctx context.Context, i int) error) (int, error) {
	done := 0
	for size := min(n, 1); size > 0; size = min(2*size, n-done) {
		ok, err := All(ctx, size, func(ctx context.Context, i int) error { return fn(ctx, done+i) })
		if err != nil {
			return done + ok, err
		}
		done += size
	}
	return done, nil
}

// All calls fn n times at once, waits for all, and returns how many went well
// and the first error.
func All(ctx context.Context, n int, fn func(ctx context.Context, i int) error) (int, error) {
	if n == 1 {
		if err := fn(ctx, 0); err != nil {
			return 0, err
		}
		return 1, nil
	}
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Add(1)
		errs[i] = ErrPanic
		run.Detach(ctx, "batch", func(ctx context.Context) {
			defer wg.Done()
			errs[i] = fn(ctx, i)
		})
	}
	wg.Wait()
	ok := 0
	var first error
	for _, err := range errs {
		if err == nil {
			ok++
		} else if first == nil {
			first = err
		}
	}
	return ok, first
}

// Package clock is the only place that reads the wall clock or waits for it.
//
// Job: give every other room the time, timers and seeded randomness under one
// name, so that a reader can find all uses and tests can put virtual time under
// them with testing/synctest, which replaces the clock below this package.
//
// Not its job: schedules, back-off, retries (kit/backoff, kit/queue).
package clock

import (
	"context"
	"math/rand/v2"
	"time"
)

// Now returns the current time.
func Now() time.Time { return time.Now() }

// Since returns the time passed since t.
func Since(t time.Time) time.Duration { return time.Since(t) }

// Until returns the time left until t.
func Until(t time.Time) time.Duration { return time.Until(t) }

// Sleep waits for d or until ctx ends, and says which by its error.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NewTimer returns a timer that fires once after d.
func NewTimer(d time.Duration) *time.Timer { return time.NewTimer(d) }

// NewTicker returns a ticker that fires every d.
func NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

// AfterFunc calls f on its own goroutine after d.
func AfterFunc(d time.Duration, f func()) *time.Timer { return time.AfterFunc(d, f) }

// Jitter returns d lengthened by a random part of up to fraction of itself.
func Jitter(d time.Duration, fraction float64) time.Duration {
	if fraction <= 0 {
		return d
	}
	return d + time.Duration(rand.Float64()*fraction*float64(d))
}

// Chance is true with probability p.
func Chance(p float64) bool { return rand.Float64() < p }

// Rand returns a source of randomness that depends on seed alone, so that a
// decision made with it can be replayed.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)) }

// Seed returns a fresh, unpredictable seed for Rand.
func Seed() uint64 { return rand.Uint64() }

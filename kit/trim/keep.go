package trim

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

const (
	look  = 30 * time.Second // between looks at oneself
	fresh = 5 * time.Second  // after which what is needed all the time is there again
	grown = 6 << 20          // bytes that make a trim worth its while
	often = 10 * time.Minute // within which a trim did not last, if another is due
)

// Keep trims once the program has started, and from then on whenever it rests
// after work that took memory, until ctx ends. A look costs two reads of the
// kernel's counters.
func Keep(ctx context.Context) {
	run.Detach(ctx, "trim memory", func(ctx context.Context) {
		if clock.Sleep(ctx, Settled) != nil {
			return
		}
		m := memory{}
		for {
			_ = Now()
			if clock.Sleep(ctx, fresh) != nil {
				return
			}
			m.trimmed(clock.Now(), resident(), used())
			for due := false; !due; due = m.due(resident(), used()) {
				if clock.Sleep(ctx, look) != nil {
					return
				}
			}
		}
	})
}

// memory decides when a trim is due.
type memory struct {
	base int64         // bytes resident a moment after the last trim
	need int64         // growth that makes another due
	at   time.Time     // of the last trim
	used time.Duration // of the processor, at the last look
}

// trimmed puts down how it is after a trim. What comes back soon is needed: each
// trim that did not last makes the next wait for twice the growth.
func (m *memory) trimmed(now time.Time, resident int64, used time.Duration) {
	if m.need > 0 && now.Sub(m.at) < often {
		m.need *= 2
	} else {
		m.need = grown
	}
	m.base, m.at, m.used = resident, now, used
}

// due says whether the program has rested since the last look, and is larger than
// it has to be.
func (m *memory) due(resident int64, used time.Duration) bool {
	rested := used-m.used < look/50
	m.used = used
	return rested && resident-m.base > m.need
}

// resident is how many bytes of this process are in memory; 0 if nobody knows.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var all, in int64
	if _, err := fmt.Sscan(string(text), &all, &in); err != nil {
		return 0
	}
	return in * int64(os.Getpagesize())
}

// used is the processor time of this process.
func used() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

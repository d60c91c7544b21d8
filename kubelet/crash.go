package kubelet

import "time"

// Crash is the back-off of a container that ends again and again.
type Crash struct {
	Delay time.Duration // the wait before the next restart
	At    time.Time     // when Delay was set
}

// The back-off of restarts: the first is immediate, the second waits for
// crashFirst, each further one twice as long.
const (
	crashFirst = 10 * time.Second
	crashMax   = 5 * time.Minute
)

// After says how long to wait before the restart of a container that ended at
// finish. If that is not at all, next is the entry to remember.
func (c Crash) After(finish, now time.Time, limit time.Duration) (wait time.Duration, next Crash) {
	if limit == 0 {
		limit = crashMax
	}
	first := min(crashFirst, limit)
	expired := c.At.IsZero() || finish.Sub(c.At) > 2*limit
	if !expired {
		if left := c.Delay - now.Sub(finish); left > 0 {
			return left, c
		}
	}
	if c.At.IsZero() || now.Sub(c.At) > 2*limit {
		return 0, Crash{Delay: first, At: now}
	}
	return 0, Crash{Delay: min(2*c.Delay, limit), At: now}
}

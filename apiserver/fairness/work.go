package fairness

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// work is what a request costs.
type work struct {
	seats int           // while it is served
	final int           // afterwards
	extra time.Duration // for so long
}

// width is how many seats must be free.
func (w work) width() int { return max(w.seats, w.final) }

// Upstream's figures.
const (
	bytesPerSeat   = 100_000
	maxListBytes   = 1_000_000 // of a list from memory: it is streamed
	maxListSeats   = 100
	maxWriteSeats  = 10
	watchesPerSeat = 10
	eventTime      = 5 * time.Millisecond
	maxSeatsPart   = 0.15
)

// maxSeats is how many seats one request of a level may take.
func maxSeats(nominal, hand int) int {
	n := min(int(math.Ceil(float64(nominal)*maxSeatsPart)), nominal/max(hand, 1))
	return max(1, n)
}

// estimate says what a request costs.
func (c *Controller) estimate(r *http.Request, i *request.Info, most int) work {
	switch i.Verb {
	case "list":
		return work{seats: c.listSeats(r, i, min(most, maxListSeats))}
	case "watch":
		if !wantsState(r.URL.RawQuery) {
			return work{seats: 1}
		}
		return work{seats: c.listSeats(r, i, min(most, maxListSeats))}
	case "create", "update", "patch", "delete":
		if i.IsResource {
			return writeWork(c.watches.count(i), min(most, maxWriteSeats), i)
		}
	}
	return work{seats: 1}
}

// wantsState says whether a watch begins with the objects there are.
func wantsState(query string) bool {
	if !strings.Contains(query, "resourceVersion=") {
		return true
	}
	return strings.Contains(query, "sendInitialEvents=true") || strings.Contains(query, "resourceVersion=&") ||
		strings.HasSuffix(query, "resourceVersion=") || strings.Contains(query, "resourceVersion=0&") || strings.HasSuffix(query, "resourceVersion=0")
}

// listSeats charges a list by the bytes it makes.
func (c *Controller) listSeats(r *http.Request, i *request.Info, most int) int {
	if i.Name != "" || c.d.Size == nil {
		return 1
	}
	n, bytes, ok := c.d.Size(i.Group, i.Resource)
	if !ok || n == 0 {
		return 1
	}
	if strings.Contains(r.URL.RawQuery, "limit=") {
		if limit, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && limit > 0 && limit < n {
			bytes = bytes / int64(n) * int64(limit)
		}
	}
	seats := (min(bytes, maxListBytes) + bytesPerSeat - 1) / bytesPerSeat
	return max(1, min(int(seats), most))
}

// writeWork adds, to what a write costs, telling the watchers.
func writeWork(watchers, most int, i *request.Info) work {
	w := work{seats: 1}
	if watchers < watchesPerSeat || i.Resource == "serviceaccounts" && i.Subresource == "token" {
		return w
	}
	seats := (watchers + watchesPerSeat - 1) / watchesPerSeat
	w.final = min(seats, most)
	w.extra = eventTime * time.Duration(seats) / time.Duration(w.final)
	return w
}

// watched is what a watch sees.
type watched struct{ group, resource, namespace, name string }

// watches counts the watches there are, by what they see.
type watches struct {
	mu sync.RWMutex
	m  map[watched]*atomic.Int64
}

func (w *watches) begin(i *request.Info) {
	key := watched{i.Group, i.Resource, i.Namespace, i.Name}
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.m[key]
	if n == nil {
		if w.m == nil {
			w.m = map[watched]*atomic.Int64{}
		}
		n = &atomic.Int64{}
		w.m[key] = n
	}
	n.Add(1)
}

// end forgets a watch, and its key with the last one.
func (w *watches) end(i *request.Info) {
	key := watched{i.Group, i.Resource, i.Namespace, i.Name}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.m[key]; n != nil && n.Add(-1) <= 0 {
		delete(w.m, key)
	}
}

// count says how many watches see a write to i's object.
func (w *watches) count(i *request.Info) int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if len(w.m) == 0 {
		return 0
	}
	get := func(namespace, name string) int {
		if n := w.m[watched{i.Group, i.Resource, namespace, name}]; n != nil {
			return int(n.Load())
		}
		return 0
	}
	sum := get("", "")
	if i.Namespace != "" {
		sum += get(i.Namespace, "")
	}
	if i.Name != "" {
		sum += get(i.Namespace, i.Name)
	}
	return sum
}

// bound is how long a request may wait: a quarter of the time it has, a minute
// at most.
func bound(deadline time.Time, has bool, now time.Time, fallback time.Duration) time.Duration {
	wait := fallback
	if has {
		wait = deadline.Sub(now) / 4
	}
	return min(wait, time.Minute)
}

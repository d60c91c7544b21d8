package fairness

import (
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// Config says how much there is to share.
type Config struct {
	// Seats is how many may be taken at once by all levels together: upstream's
	// --max-requests-inflight plus --max-mutating-requests-inflight. 600 when 0.
	Seats int
	// Wait is how long a request without a deadline may wait for its seats; 15 s
	// when 0. Others may wait a quarter of the time they have.
	Wait time.Duration
	// Seed makes the dealing of queues predictable, for tests; random when 0.
	Seed uint64
}

// Deps are what fairness needs of its surroundings. All but Back may be nil.
type Deps struct {
	// Back keeps the FlowSchemas and PriorityLevelConfigurations.
	Back request.Backend
	// Size says how many objects of a resource are stored, and how many bytes
	// they are together. A list of what it does not know costs one seat.
	Size func(group, resource string) (objects int, bytes int64, ok bool)
	// Inflight is told of short requests that begin and end.
	Inflight func(mutating bool, delta int)
	// Dropped is told of each request refused.
	Dropped func(mutating bool)
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Check fills in defaults and refuses what cannot work.
func (c *Config) Check() error {
	if c.Seats == 0 {
		c.Seats = 600
	}
	if c.Wait == 0 {
		c.Wait = 15 * time.Second
	}
	if c.Seed == 0 {
		c.Seed = clock.Seed()
	}
	if c.Seats < 0 || c.Wait < 0 {
		return errors.New("--max-requests-inflight, --max-mutating-requests-inflight: want a total above 0")
	}
	return nil
}

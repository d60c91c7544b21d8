package cache

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config bounds a Cache. Zero fields are defaults.
type Config struct {
	// Prefix is what the cache watches as a whole: "/registry/".
	Prefix string
	// A resource's log is cut at whichever of these it reaches first.
	MaxEvents int           // 100,000
	MaxBytes  int64         // 8 MiB of keys and values
	MaxAge    time.Duration // 5 minutes
	// Progress is how often idle watchers who want it hear of progress: 10 s.
	Progress time.Duration
	// Wait is how long a consistent read waits for the cache to catch up before
	// it asks the store behind: 3 s, upstream's.
	Wait time.Duration
	// Resource names the resource below a registered prefix in metrics.
	Resource func(prefix string) (group, resource string)
	Metrics  prometheus.Registerer // nil for none
	Log      *slog.Logger          // slog.Default() when nil
}

// Check says what is wrong with c.
func (c *Config) Check() error {
	if c.Prefix != "" && !strings.HasSuffix(c.Prefix, "/") {
		return errors.New("cache: prefix must end with /")
	}
	if c.MaxEvents < 0 || c.MaxBytes < 0 || c.MaxAge < 0 || c.Progress < 0 || c.Wait < 0 {
		return errors.New("cache: bounds must not be negative")
	}
	return nil
}

func (c *Config) fill() {
	c.Prefix = orElse(c.Prefix, "/registry/")
	c.MaxEvents = orElse(c.MaxEvents, 100_000)
	c.MaxBytes = orElse(c.MaxBytes, 8<<20)
	c.MaxAge = orElse(c.MaxAge, 5*time.Minute)
	c.Progress = orElse(c.Progress, 10*time.Second)
	c.Wait = orElse(c.Wait, 3*time.Second)
	if c.Resource == nil {
		c.Resource = lastWord
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// lastWord takes the last part of a prefix for the resource, and the part
// before for the group if it looks like one.
func lastWord(prefix string) (group, resource string) {
	parts := strings.Split(strings.Trim(prefix, "/"), "/")
	if n := len(parts); n > 1 && strings.Contains(parts[n-2], ".") {
		group = parts[n-2]
	}
	return group, parts[len(parts)-1]
}

func orElse[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

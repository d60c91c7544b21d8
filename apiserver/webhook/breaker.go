package webhook

import (
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// breaker remembers how a hook has answered. One that failed often enough in a
// row rests; after that, one request at a time finds out whether it is back.
type breaker struct {
	cfg    Config
	client string

	mu     sync.Mutex
	failed int
	rest   time.Duration
	until  time.Time
}

// allow says whether the hook should be called.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < b.cfg.Breaks {
		return true
	}
	now := clock.Now()
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(b.rest) // this one tries; the others wait for what it finds
	return true
}

// tired says whether the hook counts as dead.
func (b *breaker) tired() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed >= b.cfg.Breaks
}

func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed, b.rest = 0, 0
}

func (b *breaker) fail() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed++; b.failed < b.cfg.Breaks {
		return
	}
	if b.rest = min(b.rest*2, b.cfg.MaxRest); b.rest == 0 {
		b.rest = b.cfg.Rest
	}
	b.until = clock.Now().Add(b.rest)
}

// clientKey says where a hook is; one that moved is no longer known to be dead.
func clientKey(c *admissionv1.WebhookClientConfig) string {
	key := string(c.CABundle)
	if c.URL != nil {
		key += "\x00" + *c.URL
	}
	if s := c.Service; s != nil {
		key += "\x00" + s.Namespace + "/" + s.Name
	}
	return key
}

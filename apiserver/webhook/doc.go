// Package webhook lets services outside the server take part in admission.
//
// Job: the plugins MutatingAdmissionWebhook and ValidatingAdmissionWebhook:
// which hooks a request concerns, calling them, and what their answers mean.
//
// Not its job: what a request matches and looks like (apiserver/dynamic), what a
// configuration may say (resource/admissionregistration).
//
// Invariants: an answer is believed only if it answers the question that was
// asked. A hook that may fail is not waited for longer than the request's
// budget for such hooks, nor again while it is known to be dead. A dead hook
// never keeps away what would bring it back.
package webhook

import (
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/dynamic"
)

// Config says how much patience there is.
type Config struct {
	// Budget bounds what one request spends on hooks with failurePolicy Ignore
	// that do not answer; 0 is DefaultBudget.
	Budget time.Duration
	// Breaks is how many failures in a row make a hook count as dead; 0 is DefaultBreaks.
	Breaks int
	// Shown are what the server shows of itself to mutating and to validating
	// hooks, by their hosts and ports; nil shows nothing.
	ShownToMutating, ShownToValidating Shown
	// Rest is how long a dead hook is first left alone; it doubles up to MaxRest.
	Rest, MaxRest time.Duration
}

// Shown is what the server shows of itself to a host and port: a certificate,
// when certificate is not nil, and what wrap puts into each request.
type Shown = func(hostPort string) (certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error), wrap func(http.RoundTripper) http.RoundTripper, err error)

// The values of a Config that says nothing.
const (
	DefaultBudget  = 15 * time.Second
	DefaultBreaks  = 5
	DefaultRest    = 5 * time.Second
	DefaultMaxRest = time.Minute
)

// Check fills in what was left out.
func (c *Config) Check() error {
	if c.Budget < 0 || c.Breaks < 0 || c.Rest < 0 || c.MaxRest < 0 {
		return errors.New("webhook: negative patience")
	}
	if c.Budget == 0 {
		c.Budget = DefaultBudget
	}
	if c.Breaks == 0 {
		c.Breaks = DefaultBreaks
	}
	if c.Rest == 0 {
		c.Rest = DefaultRest
	}
	if c.MaxRest == 0 {
		c.MaxRest = max(DefaultMaxRest, c.Rest)
	}
	return nil
}

// Webhooks are both plugins and what they share.
type Webhooks struct {
	cfg     Config
	deps    dynamic.Deps
	hooks   *hooks
	caller  *caller
	metrics *metrics
}

// New returns the plugins' parts; nothing runs yet.
func New(cfg Config, deps dynamic.Deps, reg prometheus.Registerer) (*Webhooks, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return &Webhooks{cfg: cfg, deps: deps, hooks: newHooks(cfg), caller: newCaller(deps.Back, map[string]Shown{mutatingKind: cfg.ShownToMutating, validatingKind: cfg.ShownToValidating}), metrics: newMetrics(reg)}, nil
}

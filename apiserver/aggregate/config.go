package aggregate

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Config says how other servers are reached.
type Config struct {
	// ProxyClient is the certificate shown to other servers; nil shows none.
	ProxyClient func() (*tls.Certificate, error)
	// EndpointRouting goes to a service's ready endpoints; else to its cluster address.
	EndpointRouting bool
	// AllowRedirects passes on redirects that other servers answer with.
	AllowRedirects bool
	// Self is the address at which this server itself is reached, for APIServices
	// that name the service default/kubernetes.
	Self string
	// Dial connects; nil is the ordinary network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Recheck is how often a server that answers is asked again; 30 s when 0, as upstream.
	Recheck time.Duration
	// Quarantine is how long a server may be silent until the plain discovery
	// leaves it out; a minute when 0.
	Quarantine time.Duration
}

// Deps are what the aggregator works with.
type Deps struct {
	Back request.Backend
	// Served returns every group and version served here, and a channel that is
	// closed when that changes.
	Served  func() (served []Served, changed <-chan struct{})
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Served is a group and version that is served here.
type Served struct {
	schema.GroupVersion
	// Custom ones come and go with their definitions.
	Custom bool
}

const (
	defaultRecheck    = 30 * time.Second
	defaultQuarantine = time.Minute
	dialTimeout       = 10 * time.Second
)

// Check fills in defaults and refuses what cannot work.
func (c *Config) Check() error {
	if c.Recheck == 0 {
		c.Recheck = defaultRecheck
	}
	if c.Quarantine == 0 {
		c.Quarantine = defaultQuarantine
	}
	if c.Recheck < 0 || c.Quarantine < 0 {
		return errors.New("aggregate: intervals must not be negative")
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: defaultRecheck}).DialContext
	}
	return nil
}

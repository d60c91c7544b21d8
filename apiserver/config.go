package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/audit"
	"github.com/sampan-dev/sampan/apiserver/health"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
)

// Config says how the API is served.
type Config struct {
	// Listen is the address to listen on when Listener is nil: ":6443".
	Listen string
	// Listener, when set, is served instead; it must not speak TLS itself.
	Listener net.Listener
	// Certificate returns what the server shows; nil serves without TLS, which is
	// for tests and loopback only.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAs returns the authorities named to clients when asked for a
	// certificate; who is accepted is authentication's affair. May be nil.
	ClientCAs func() *x509.CertPool
	// CipherSuites and MinVersion limit TLS; zero is Go's choice and TLS 1.2.
	CipherSuites []uint16
	MinVersion   uint16

	// Advertise is where clients inside the cluster reach this server.
	Advertise     net.IP
	AdvertisePort int
	// ServiceIP is the cluster address of default/kubernetes, the first of the
	// service range; nil keeps no such service.
	ServiceIP net.IP
	// ServicePort is the service's port, 443 when 0.
	ServicePort int
	// Identity tells several servers of a cluster apart; the advertised address when "".
	Identity string

	// MaxReads and MaxWrites bound the requests served at once, long ones not
	// counted: 400 and 200 when 0, as upstream; below 0 is without bound.
	MaxReads, MaxWrites int
	// Goaway is the probability with which an HTTP/2 client is asked to connect
	// anew; 0 asks none.
	Goaway float64
	// CORS are patterns of origins whose pages may ask.
	CORS []string
	// StrictTransport are the directives of Strict-Transport-Security.
	StrictTransport []string
	// Streams is how many requests a client may have on one connection; 1000 when 0.
	Streams int
	// Fairness shares the sum of both between flows, by FlowSchemas and priority
	// levels, instead of bounding each.
	Fairness bool
	// Timeout bounds a request; 60 s when 0.
	Timeout time.Duration
	// HeaderTimeout bounds the reading of a request's head, 32 s when 0; Stall is
	// how long a watch's client may read nothing, a minute when 0.
	HeaderTimeout, Stall time.Duration
	// Flags are those in effect, shown at /flagz.
	Flags map[string]string
	// Anonymous lets requests without credentials in, as system:anonymous.
	Anonymous bool
	// Profiling serves /debug/pprof.
	Profiling bool
	// PostStart is done once the server serves.
	PostStart []request.Hook
	// ShutdownDelay keeps serving, unready, after the end was asked for.
	ShutdownDelay time.Duration
}

// Deps are what a server is made of. All but Engine may be nil.
type Deps struct {
	// Engine does the verbs; its own parts (admission, authorizer, connectors …)
	// are set on it before.
	Engine *rest.Engine
	// Authn are asked in order; none at all lets everybody in as system:anonymous.
	Authn []request.Authenticator
	// Impersonate returns whom a request acts as; nil ignores its headers.
	Impersonate func(r *http.Request, u *request.User, authz request.Authorizer) (*request.User, error)
	// OpenAPI serves what is below /openapi/.
	OpenAPI http.Handler
	// Paths are further handlers by path: "/openid/v1/jwks".
	Paths map[string]http.Handler
	// Aggregated serves requests of groups and versions that other servers have.
	// It says whether it did.
	Aggregated func(w http.ResponseWriter, r *http.Request) bool
	// Discovery adds what other servers have to this one's discovery.
	Discovery func(own http.Handler) http.Handler
	// Audit puts requests on record; nil puts none.
	Audit *audit.Auditor
	// Size says how many objects of a resource are stored, and their bytes, so
	// that lists can be charged by what they cost.
	Size func(group, resource string) (objects int, bytes int64, ok bool)
	// Healthy are further conditions of health, of life and of readiness.
	Healthy []health.Check
	// Ready are further conditions of readiness.
	Ready   []health.Check
	Log     *slog.Logger
	Metrics *prometheus.Registry
}

// maxGoaway is the highest chance that does not become a burden itself.
const maxGoaway = 0.02

// Check fills in defaults and refuses what cannot work.
func (c *Config) Check() error {
	if c.Listen == "" && c.Listener == nil {
		c.Listen = ":6443"
	}
	if c.MaxReads == 0 {
		c.MaxReads = 400
	}
	if c.MaxWrites == 0 {
		c.MaxWrites = 200
	}
	if c.Timeout == 0 {
		c.Timeout = 60 * time.Second
	}
	if c.Timeout < 0 {
		return errors.New("request-timeout must not be negative")
	}
	if c.Goaway < 0 || c.Goaway > maxGoaway {
		return fmt.Errorf("--goaway-chance can not be less than 0 or greater than %v", maxGoaway)
	}
	for _, p := range c.CORS {
		if _, err := regexp.Compile(p); err != nil {
			return fmt.Errorf("--cors-allowed-origins: %w", err)
		}
	}
	if c.HeaderTimeout == 0 {
		c.HeaderTimeout = headerTimeout
	}
	if c.Stall == 0 {
		c.Stall = time.Minute
	}
	if c.Streams == 0 {
		c.Streams = 1000
	}
	if c.ServicePort == 0 {
		c.ServicePort = 443
	}
	if c.AdvertisePort == 0 {
		c.AdvertisePort = 6443
	}
	if c.Identity == "" {
		c.Identity = c.Advertise.String()
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	return nil
}

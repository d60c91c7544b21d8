package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver/discovery"
	"github.com/sampan-dev/sampan/apiserver/fairness"
	"github.com/sampan-dev/sampan/apiserver/health"
	"github.com/sampan-dev/sampan/apiserver/local"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Server is an API server.
type Server struct {
	c         Config
	d         Deps
	log       *slog.Logger
	registry  *rest.Registry
	engine    *rest.Engine
	disc      *discovery.Handler
	discovery http.Handler // disc, and what other servers add
	metrics   *metrics
	judged    *judged
	pace      *pace
	reads     chan struct{}
	writes    chan struct{}

	healthz, livez, readyz *health.Handler
	hooks                  []*hook
	fair                   *fairness.Controller // nil: reads and writes have their slots
	debug                  map[string]http.Handler
	began                  time.Time
	ending                 atomic.Bool
	handler, inner, within http.Handler // for all, behind the filters, for this process
	addr                   atomic.Pointer[net.Addr]
	serving                chan struct{}
}

// hook is a Hook and how it went.
type hook struct {
	request.Hook
	done atomic.Bool
}

// New returns a server that does nothing yet.
func New(c Config, d Deps) (*Server, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("apiserver: config: %w", err)
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
	}
	registry := d.Engine.Registry
	s := &Server{
		c: c, d: d, log: d.Log, registry: registry, engine: d.Engine, metrics: newMetrics(d.Metrics, registry),
		disc:    discovery.New(registry.Kinds, net.JoinHostPort(c.Advertise.String(), fmt.Sprint(c.AdvertisePort))),
		serving: make(chan struct{}),
	}
	s.judged = newJudged(d.Metrics)
	s.pace = newPace()
	s.discovery = s.disc
	if d.Discovery != nil {
		s.discovery = d.Discovery(s.disc)
	}
	s.discovery = discovery.Present(s.discovery)
	if c.MaxReads > 0 {
		s.reads = make(chan struct{}, c.MaxReads)
	}
	if c.MaxWrites > 0 {
		s.writes = make(chan struct{}, c.MaxWrites)
	}
	if err := s.makeFair(); err != nil {
		return nil, err
	}
	s.began = clock.Now()
	s.makeHealth()
	s.inner = s.authorized(s.mux())
	s.within = s.audited(s.inner)
	s.handler = s.filters(s.inner)
	return s, nil
}

func (s *Server) makeHealth() {
	store := health.Check{Name: "etcd", Fn: func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		_, err := s.engine.Store.Rev(ctx)
		return err
	}}
	ready := health.Check{Name: "etcd-readiness", Fn: store.Fn}
	s.healthz = health.New("/healthz", s.log, health.Ping(), store)
	s.livez = health.New("/livez", s.log, health.Ping())
	s.readyz = health.New("/readyz", s.log, health.Ping(), store, ready)
	own := []request.Hook{
		{Name: "start-system-namespaces-controller", Fn: s.ensureNamespaces},
		{Name: "bootstrap-controller", Fn: s.ensureService},
	}
	own = append(own, s.fairHooks()...)
	for _, h := range append(own, s.c.PostStart...) {
		s.addHook(h)
	}
	s.readyz.Add(health.Check{Name: "shutdown", Fn: func(*http.Request) error {
		if s.ending.Load() {
			return errors.New("process is shutting down")
		}
		return nil
	}})
	s.readyz.Add(s.d.Ready...)
	for _, h := range []*health.Handler{s.healthz, s.livez, s.readyz} {
		h.Add(s.d.Healthy...)
		h.Count(s.metrics.checked)
	}
}

func (s *Server) addHook(h request.Hook) {
	k := &hook{Hook: h}
	s.hooks = append(s.hooks, k)
	c := health.Check{Name: "poststarthook/" + h.Name, Fn: func(*http.Request) error {
		if !k.done.Load() {
			return errors.New("not finished")
		}
		return nil
	}}
	s.healthz.Add(c)
	s.livez.Add(c)
	s.readyz.Add(c)
}

// Backend is the server's store of objects, for its own parts.
func (s *Server) Backend() request.Backend { return s.engine.Backend() }

// ServeHTTP serves the API with all filters. A request whose context has a user
// already, which only this process can do, is not asked who it is again.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if request.HasUser(r.Context()) {
		s.within.ServeHTTP(w, r.WithContext(request.WithInfo(r.Context(), request.Parse(r))))
		return
	}
	s.handler.ServeHTTP(w, r)
}

// Handler serves the API with all filters.
func (s *Server) Handler() http.Handler { return s.handler }

// Local returns a client in process that acts as user.
func (s *Server) Local(user *request.User) *local.Client {
	c := local.New(s.engine.Calls(), s.engine.Authorizer, s, user, "")
	if s.d.Audit != nil {
		c.Record(s.d.Audit)
	}
	return c
}

// Loopback is who the server is to itself.
func Loopback() *request.User {
	return &request.User{Name: request.LoopbackUser, Groups: []string{request.Masters, request.Authenticated}}
}

// Addr is where the server listens once it does, or nil.
func (s *Server) Addr() net.Addr {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return nil
}

// Serving is closed when the server listens.
func (s *Server) Serving() <-chan struct{} { return s.serving }

// Limits of a connection against those who are slow on purpose.
const (
	headerTimeout = 32 * time.Second
	idleTimeout   = 3 * time.Minute
	maxHeader     = 1 << 20
	graceShutdown = 10 * time.Second
)

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	l := s.c.Listener
	if l == nil {
		var err error
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.c.Listen); err != nil {
			return fmt.Errorf("apiserver: listen: %w", err)
		}
	}
	base, cancelBase := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelBase()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: s.c.HeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		Protocols: &protocols, ErrorLog: log.New(&noise{s.log, s.metrics.handshakes}, "", 0),
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: s.c.Streams, MaxReadFrameSize: 1 << 20},
		BaseContext: func(net.Listener) context.Context { return base },
	}
	if s.c.Certificate != nil {
		srv.TLSConfig = s.tlsConfig()
		l = tls.NewListener(l, srv.TLSConfig)
	}
	addr := l.Addr()
	s.addr.Store(&addr)
	g := run.New(ctx)
	g.Go("apiserver listener", func(context.Context) error {
		close(s.serving)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go("apiserver hooks", s.runHooks)
	if s.d.Audit != nil {
		g.Go("audit", s.d.Audit.Run)
	}
	if s.fair != nil {
		g.Go("priority and fairness", func(ctx context.Context) error { return s.fair.Run(request.WithUser(ctx, Loopback())) })
	}
	<-g.Context().Done()
	s.ending.Store(true)
	s.shutdown(srv, cancelBase)
	return g.Wait()
}

// shutdown lets short requests finish, then ends watches and streams.
func (s *Server) shutdown(srv *http.Server, cancelBase func()) {
	if s.c.ShutdownDelay > 0 {
		clock.Sleep(context.Background(), s.c.ShutdownDelay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), graceShutdown)
	defer cancel()
	run.Detach(ctx, "apiserver end watches", func(ctx context.Context) {
		clock.Sleep(ctx, 100*time.Millisecond)
		cancelBase()
	})
	if srv.Shutdown(ctx) != nil {
		srv.Close()
	}
}

func (s *Server) tlsConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: s.c.MinVersion, CipherSuites: s.c.CipherSuites, GetCertificate: s.c.Certificate,
		ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"},
	}
	if s.c.ClientCAs == nil {
		return c
	}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		d := c.Clone()
		d.GetConfigForClient = nil
		d.ClientCAs = s.c.ClientCAs()
		return d, nil
	}
	return c
}

// runHooks does the post-start work, each until it succeeds.
func (s *Server) runHooks(ctx context.Context) error {
	g := run.New(ctx)
	for _, h := range s.hooks {
		g.Go("hook "+h.Name, func(ctx context.Context) error {
			for wait := 20 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
				err := h.Fn(request.WithUser(ctx, Loopback()), s.Backend())
				if err == nil || ctx.Err() != nil {
					h.done.Store(err == nil)
					return nil
				}
				s.log.Warn("post-start hook failed, trying again", "hook", h.Name, "err", err)
				if clock.Sleep(ctx, wait) != nil {
					return nil
				}
			}
		})
	}
	g.Go("kubernetes service", s.keepService)
	return g.Wait()
}

// noise passes the HTTP server's complaints to the log, quietly: strangers'
// failed handshakes are weather.
type noise struct {
	log        *slog.Logger
	handshakes prometheus.Counter
}

func (n *noise) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("http: TLS handshake error")) {
		n.handshakes.Inc()
	}
	n.log.Debug("http", "msg", string(p))
	return len(p), nil
}

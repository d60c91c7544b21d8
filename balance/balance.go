package balance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Config says what a balancer does. Zero durations are its defaults.
type Config struct {
	Listen  []string // addresses with ports
	Servers []string // addresses with ports, to begin with
	// File remembers the servers, a line each; "" forgets them.
	File string
	// Prefer is the server that is used while it is ready: this machine's own.
	Prefer string
	// TLS is by which servers are asked whether they are ready.
	TLS *tls.Config

	Period  time.Duration // between questions to one server; 500 ms
	Timeout time.Duration // of an answer, and of connecting; 1 s
}

// Check fills in defaults and says what is wrong.
func (c *Config) Check() error {
	if c.Period == 0 {
		c.Period = 500 * time.Millisecond
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	var errs []error
	if len(c.Listen) == 0 {
		errs = append(errs, errors.New("nowhere to listen"))
	}
	for _, a := range slices.Concat(c.Listen, c.Servers) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			errs = append(errs, fmt.Errorf("want an address and a port: %w", err))
		}
	}
	if c.TLS == nil {
		errs = append(errs, errors.New("no authority to know the servers by"))
	}
	return errors.Join(errs...)
}

// Balancer is one balancer. Make one with New.
type Balancer struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	servers map[string]*server
	g       *run.Group // nil until Run
	bound   []net.Addr
	ready   chan struct{} // closed when it listens
}

// server is one server and the connections to it.
type server struct {
	addr  string
	state State
	conns map[net.Conn]net.Conn // to the server: from the client
	kick  chan struct{}
	stop  context.CancelFunc
}

// New checks cfg and starts nothing. Servers that the file remembers are known
// from the start.
func New(cfg Config, metrics *prometheus.Registry, log *slog.Logger) (*Balancer, error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	b := &Balancer{cfg: cfg, log: log, metrics: newMetrics(metrics), servers: map[string]*server{}, ready: make(chan struct{})}
	list := cfg.Servers
	if text, err := os.ReadFile(cfg.File); cfg.File != "" && err == nil {
		list = slices.Concat(list, strings.Fields(string(text)))
	}
	b.put(list)
	return b, nil
}

// Addrs are where the balancer listens, once it does.
func (b *Balancer) Addrs(ctx context.Context) ([]net.Addr, error) {
	select {
	case <-b.ready:
		return b.bound, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Set replaces the servers, unless by none, and remembers them.
func (b *Balancer) Set(list []string) {
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	if len(list) == 0 || !b.put(list) || b.cfg.File == "" {
		return
	}
	err := os.MkdirAll(filepath.Dir(b.cfg.File), 0o755)
	if err == nil {
		err = os.WriteFile(b.cfg.File+".new", []byte(strings.Join(list, "\n")+"\n"), 0o644)
	}
	if err == nil {
		err = os.Rename(b.cfg.File+".new", b.cfg.File)
	}
	if err != nil {
		b.log.Warn("the list of API servers is not remembered", "err", err)
	}
}

// put makes the servers those of list, and says whether they were others before.
func (b *Balancer) put(list []string) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, addr := range list {
		if b.servers[addr] != nil {
			continue
		}
		s := &server{addr: addr, state: Unknown, conns: map[net.Conn]net.Conn{}, kick: make(chan struct{}, 1)}
		b.servers[addr] = s
		b.watch(s)
		changed = true
	}
	for addr, s := range b.servers {
		if slices.Contains(list, addr) {
			continue
		}
		changed = true
		delete(b.servers, addr)
		if s.stop != nil {
			s.stop()
		}
		s.abandon(b.metrics)
		b.metrics.forget(addr)
	}
	if changed {
		for _, s := range b.servers {
			s.hurry()
		}
	}
	return changed
}

// watch asks a server for its readiness for as long as it is one of ours. The
// caller holds the lock.
func (b *Balancer) watch(s *server) {
	if b.g == nil {
		return
	}
	ctx, stop := context.WithCancel(b.g.Context())
	s.stop = stop
	run.Detach(ctx, "readiness of "+s.addr, func(ctx context.Context) { b.check(ctx, s) })
}

// Run balances until ctx ends.
func (b *Balancer) Run(ctx context.Context) error {
	g := run.New(ctx)
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, at := range b.cfg.Listen {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
		if err != nil {
			return fmt.Errorf("balancer: %w", err)
		}
		listeners, b.bound = append(listeners, l), append(b.bound, l.Addr())
	}
	b.mu.Lock()
	b.g = g
	for _, s := range b.servers {
		b.watch(s)
	}
	b.mu.Unlock()
	close(b.ready)
	for _, l := range listeners {
		g.Go("balancer "+l.Addr().String(), func(ctx context.Context) error { return b.accept(ctx, l) })
	}
	err := g.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.servers {
		s.abandon(b.metrics)
	}
	return err
}

func (b *Balancer) accept(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		in, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // too many files are open, or the like: it passes
			b.log.Warn("balancer: accept", "err", err)
			if clock.Sleep(ctx, 100*time.Millisecond) != nil {
				return ctx.Err()
			}
			continue
		}
		run.Detach(ctx, "balanced connection", func(ctx context.Context) { b.serve(ctx, in) })
	}
}

// serve joins a client to the best server that takes it.
func (b *Balancer) serve(ctx context.Context, in net.Conn) {
	defer in.Close()
	dialer := net.Dialer{Timeout: b.cfg.Timeout}
	for _, addr := range Order(b.views(), b.cfg.Prefer) {
		out, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			b.failed(addr)
			continue
		}
		if s := b.begin(addr, out, in); s != nil {
			splice(in, out)
			b.end(s, out)
		}
		out.Close()
		return
	}
	b.metrics.refused.Inc()
}

func (b *Balancer) views() []View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.viewsLocked()
}

func (b *Balancer) viewsLocked() []View {
	list := make([]View, 0, len(b.servers))
	for _, s := range b.servers {
		list = append(list, View{s.addr, s.state, len(s.conns)})
	}
	return list
}

// failed has a server that took no connection asked at once how it is.
func (b *Balancer) failed(addr string) {
	b.metrics.failures.WithLabelValues(addr).Inc()
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.servers[addr]; s != nil {
		s.hurry()
	}
}

// hurry has the server asked at once.
func (s *server) hurry() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// begin books a connection; nil if the server has left meanwhile.
func (b *Balancer) begin(addr string, out, in net.Conn) *server {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.servers[addr]
	if s != nil {
		s.conns[out] = in
		b.metrics.connections.WithLabelValues(addr).Set(float64(len(s.conns)))
	}
	return s
}

func (b *Balancer) end(s *server, out net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(s.conns, out)
	if b.servers[s.addr] == s {
		b.metrics.connections.WithLabelValues(s.addr).Set(float64(len(s.conns)))
	}
}

// abandon closes a server's connections. Both ends are reset rather than closed,
// so that nobody waits for a farewell.
func (s *server) abandon(m *metrics) {
	for out, in := range s.conns {
		for _, c := range []net.Conn{out, in} {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
			c.Close()
		}
		m.closed.WithLabelValues(s.addr).Inc()
	}
	clear(s.conns)
}

// check asks a server for its readiness until ctx ends.
func (b *Balancer) check(ctx context.Context, s *server) {
	t := &http.Transport{TLSClientConfig: b.cfg.TLS.Clone(), ForceAttemptHTTP2: true, MaxConnsPerHost: 2,
		DialContext: (&net.Dialer{Timeout: b.cfg.Timeout}).DialContext}
	defer t.CloseIdleConnections()
	c := &http.Client{Transport: t, Timeout: b.cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for {
		if b.alone() { // there is no choice that the answer could change
			select {
			case <-ctx.Done():
				return
			case <-s.kick:
			}
			continue
		}
		state, err := ask(ctx, c, s.addr)
		if ctx.Err() != nil {
			return
		}
		b.observe(s, state, err)
		if state == Down { // whatever the connection was, the next question takes another
			t.CloseIdleConnections()
		}
		wait := clock.NewTimer(b.cfg.Period)
		select {
		case <-ctx.Done():
		case <-s.kick:
		case <-wait.C:
		}
		wait.Stop()
	}
}

func (b *Balancer) alone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.servers) == 1
}

// ask finds out a server's state. Whether it is ready it may not know for a
// while, where its store has lost the majority; that it lives it says at once.
func ask(ctx context.Context, c *http.Client, addr string) (State, error) {
	lives := make(chan bool, 1)
	run.Detach(ctx, "liveness of "+addr, func(ctx context.Context) {
		_, err := get(ctx, c, addr, "/livez")
		lives <- err == nil
	})
	code, err := get(ctx, c, addr, "/readyz")
	switch {
	case err != nil && <-lives:
		return Unready, err
	case err != nil:
		return Down, err
	}
	switch code {
	// Who must not know whether a server is ready has learnt that it answers and
	// decides who may.
	case http.StatusOK, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return Ready, nil
	}
	return Unready, fmt.Errorf("/readyz: status %d", code)
}

func get(ctx context.Context, c *http.Client, addr, path string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+path, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("User-Agent", "sampan-balancer")
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// observe books what a server said, and closes connections that are better elsewhere.
func (b *Balancer) observe(s *server, state State, cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.servers[s.addr] != s {
		return
	}
	if s.state != state {
		b.log.Info("API server", "server", s.addr, "was", s.state.String(), "is", state.String(), "err", cause)
	}
	s.state = state
	b.metrics.ready.WithLabelValues(s.addr).Set(map[bool]float64{true: 1}[state == Ready])
	for _, addr := range Abandoned(b.viewsLocked()) {
		b.servers[addr].abandon(b.metrics)
		b.metrics.connections.WithLabelValues(addr).Set(0)
	}
}

package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// byService is the index of slices by the service they belong to.
const byService = "service"

// Deps are what a Proxy sees the world through.
type Deps struct {
	Services client.Watchable[corev1.Service]
	Slices   client.Watchable[discoveryv1.EndpointSlice]
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Proxy keeps one node's service rules.
type Proxy struct {
	cfg     Config
	deps    Deps
	metrics *metrics

	mu    sync.Mutex
	dirty map[string]bool // services to compile anew
	wake  chan struct{}

	kernel *table
	state  *state
	synced chan struct{} // closed after the first full programming
}

// New checks cfg and starts nothing.
func New(cfg Config, deps Deps) (*Proxy, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, deps: deps, dirty: map[string]bool{}, wake: make(chan struct{}, 1), synced: make(chan struct{})}
	p.metrics = newMetrics(deps.Metrics)
	deps.Slices.Index(byService, func(s *discoveryv1.EndpointSlice) []string {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			return []string{s.Namespace + "/" + name}
		}
		return nil
	})
	return p, nil
}

// Synced is closed once the rules of all services known at start are laid.
func (p *Proxy) Synced() <-chan struct{} { return p.synced }

// Run keeps the rules as Services and EndpointSlices want them until ctx ends.
// The rules stay when it returns.
func (p *Proxy) Run(ctx context.Context) error {
	p.deps.Services.OnChange(func(old, new *corev1.Service) {
		for _, s := range []*corev1.Service{old, new} {
			if s != nil {
				p.mark(s.Namespace + "/" + s.Name)
				return
			}
		}
	})
	p.deps.Slices.OnChange(func(old, new *discoveryv1.EndpointSlice) {
		for _, s := range []*discoveryv1.EndpointSlice{old, new} {
			if s != nil {
				p.mark(s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName])
			}
		}
	})
	if err := p.deps.Services.WaitSynced(ctx); err != nil {
		return err
	}
	if err := p.deps.Slices.WaitSynced(ctx); err != nil {
		return err
	}
	policy, failures := backoff.Policy{First: 100 * time.Millisecond, Max: 10 * time.Second}, 0
	for first := true; ; {
		if err := p.sync(); err != nil {
			// What the kernel holds is no longer known: lay it all anew.
			p.reset()
			failures++
			p.metrics.failures.Inc()
			p.deps.Log.Error("proxy: rules not laid, trying again", "err", err)
			if err := clock.Sleep(ctx, policy.After(failures)); err != nil {
				return err
			}
			continue
		}
		failures = 0
		if first {
			first = false
			close(p.synced)
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
			p.reset()
			return ctx.Err()
		}
	}
}

func (p *Proxy) mark(service string) {
	p.mu.Lock()
	p.dirty[service] = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// reset forgets what is laid; the next sync starts from an empty table.
func (p *Proxy) reset() {
	if p.kernel != nil {
		p.kernel.close()
	}
	p.kernel, p.state = nil, nil
}

// sync compiles the services that changed and lays the difference.
func (p *Proxy) sync() error {
	start := clock.Now()
	p.mu.Lock()
	dirty := p.dirty
	p.dirty = map[string]bool{}
	p.mu.Unlock()
	fresh := p.kernel == nil
	if fresh {
		var err error
		if p.kernel, err = openTable(p.cfg); err != nil {
			return err
		}
		p.state = newState()
		for _, s := range p.deps.Services.List("") {
			dirty[s.Namespace+"/"+s.Name] = true
		}
	}
	c := newChange()
	for key := range dirty {
		p.state.set(key, p.compile(key), c)
	}
	if c.empty() && !fresh {
		return nil
	}
	if err := p.kernel.apply(c); err != nil {
		return err
	}
	if fresh {
		if err := routeLoopback(); err != nil {
			p.deps.Log.Warn("proxy: loopback", "err", err)
		}
	} else {
		if err := p.kernel.forget(p.departed(c)); err != nil {
			p.deps.Log.Warn("proxy: some clients may stay with an endpoint that left", "err", err)
		}
	}
	p.metrics.done(clock.Since(start), len(p.state.rules))
	return nil
}

func (p *Proxy) compile(key string) Rules {
	namespace, name, _ := strings.Cut(key, "/")
	svc, ok := p.deps.Services.Get(namespace, name)
	if !ok {
		return nil
	}
	return Compile(svc, p.deps.Slices.By(byService, key), p.cfg.NodeName)
}

// departed returns the endpoints that a change took out of use altogether.
func (p *Proxy) departed(c *change) map[Endpoint]bool {
	gone := map[Endpoint]bool{}
	for e, v := range c.del {
		if ep, ok := endpointOf(e, v); ok {
			gone[ep] = true
		}
	}
	if len(gone) == 0 {
		return nil
	}
	for e := range gone { // its hairpin entry lives as long as any service uses the address
		used := Element{hairpin, string(append(e.Addr.AsSlice(), e.Addr.AsSlice()...))}
		if p.state.uses[used] > 0 {
			delete(gone, e)
		}
	}
	return gone
}

// endpointOf reads the endpoint from an entry of an endpoint map.
func endpointOf(e Element, v string) (Endpoint, bool) {
	if !strings.HasPrefix(e.Set, endpoints) && !strings.HasPrefix(e.Set, nodeEndpoints) || len(v) < 6 {
		return Endpoint{}, false
	}
	addr, ok := netip.AddrFromSlice([]byte(v[:4]))
	return Endpoint{addr, uint16(v[4])<<8 | uint16(v[5])}, ok
}

package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Deps are what a holder needs from its surroundings.
type Deps struct {
	// Ready says whether this machine can serve at the address now.
	Ready   func(ctx context.Context) error
	Metrics *prometheus.Registry
	Log     *slog.Logger
}

// VIP is one machine's part in holding an address.
type VIP struct {
	cfg  Config
	deps Deps

	said                    string // the last complaint
	holds                   prometheus.Gauge
	taken, sent, heard, bad prometheus.Counter
}

// New checks cfg and starts nothing.
func New(cfg Config, deps Deps) (*VIP, error) {
	if !cfg.On() {
		return nil, errors.New("--vip: Required value")
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	count := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "sampan_vip_" + name, Help: help})
	}
	v := &VIP{cfg: cfg, deps: deps,
		holds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sampan_vip_holder", Help: "Whether this machine holds the virtual address."}),
		taken: count("taken_total", "How often this machine took the virtual address."), sent: count("adverts_sent_total", "VRRP adverts sent."),
		heard: count("adverts_heard_total", "VRRP adverts heard that count."), bad: count("adverts_refused_total", "VRRP adverts of this router id, or unreadable, that do not count."),
	}
	if deps.Metrics != nil {
		deps.Metrics.MustRegister(v.holds, v.taken, v.sent, v.heard, v.bad)
	}
	return v, nil
}

// How readiness is asked for: two bad answers in a row count.
const (
	readyEvery   = 300 * time.Millisecond
	readyTimeout = 700 * time.Millisecond
	unreadyAfter = 2
)

// errOther is of adverts about another address.
var errOther = errors.New("another router's")

// Run takes part until ctx ends, and leaves the address then.
func (v *VIP) Run(ctx context.Context) error {
	w, err := openWire(&v.cfg)
	if err != nil {
		return err
	}
	g := run.New(ctx)
	heard, ready := make(chan Heard, 16), make(chan bool, 1)
	g.Go("readiness", func(ctx context.Context) error { return v.watch(ctx, ready) })
	g.Go("adverts", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, w.close)
		defer stop()
		return v.listen(ctx, w, heard)
	})
	g.Go("virtual address", func(ctx context.Context) error { return v.take(ctx, w, heard, ready) })
	return g.Wait()
}

// watch says on ready what has changed.
func (v *VIP) watch(ctx context.Context, ready chan<- bool) error {
	said, failures := false, 0
	for {
		try, cancel := context.WithTimeout(ctx, readyTimeout)
		err := v.deps.Ready(try)
		cancel()
		if failures++; err == nil {
			failures = 0
		}
		if now := failures == 0 || said && failures < unreadyAfter; now != said {
			said = now
			v.deps.Log.Info("virtual address: readiness of this machine", "ready", now, "err", err)
			select {
			case ready <- now:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := clock.Sleep(ctx, readyEvery); err != nil {
			return err
		}
	}
}

// listen passes on the adverts that count. What does not is told once.
func (v *VIP) listen(ctx context.Context, w *wire, heard chan<- Heard) error {
	told := map[string]bool{}
	for {
		a, from, err := w.receive()
		if errors.Is(err, net.ErrClosed) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("listen for VRRP: %w", err)
		}
		if err == nil {
			err = v.cfg.admits(a, from)
		}
		switch {
		case errors.Is(err, errOther):
			continue
		case err != nil:
			v.bad.Inc()
			if text := from.String() + err.Error(); !told[text] && len(told) < 100 {
				told[text] = true
				v.deps.Log.Warn("virtual address: an advert does not count", "from", from, "err", err)
			}
			continue
		}
		v.heard.Inc()
		select {
		case heard <- Heard{a.Priority, a.Interval, from}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take decides and acts until ctx ends.
func (v *VIP) take(ctx context.Context, w *wire, heard <-chan Heard, ready <-chan bool) error {
	var s State
	var e Event
	for {
		e.Now = clock.Now()
		var a Actions
		s, a = v.cfg.Decide(s, e)
		v.act(w, a, s)
		if e.Stop {
			return ctx.Err()
		}
		e.Heard = nil
		t := clock.NewTimer(max(0, s.Wake().Sub(clock.Now())))
		select {
		case <-t.C:
		case h := <-heard:
			e.Heard = &h
		case e.Ready = <-ready:
		case <-ctx.Done():
			e.Stop = true
		}
		t.Stop()
	}
}

// act does what was decided. What fails is told and tried again with the next
// advert, or left to the others.
func (v *VIP) act(w *wire, a Actions, s State) {
	var errs []error
	if a.Drop {
		errs = append(errs, w.drop())
		v.holds.Set(0)
	}
	if a.Take || s.Holder && a.Send {
		errs = append(errs, w.take())
		v.holds.Set(1)
	}
	if a.Take {
		v.taken.Inc()
		v.deps.Log.Info("virtual address: taken", "address", v.cfg.Address, "priority", a.Priority)
	}
	if a.Send {
		v.sent.Inc()
		errs = append(errs, w.send(Advert{Version: v.cfg.Version, Router: v.cfg.Router, Priority: a.Priority, Interval: v.cfg.Interval,
			Addrs: []netip.Addr{v.cfg.Address.Addr()}, Password: v.cfg.Password}))
	}
	if a.Greet {
		errs = append(errs, w.greet())
	}
	err := errors.Join(errs...)
	if err != nil && err.Error() != v.said {
		v.deps.Log.Warn("virtual address", "err", err)
	}
	if v.said = ""; err != nil {
		v.said = err.Error()
	}
}

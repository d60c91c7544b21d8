package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/apiserver"
	"github.com/sampan-dev/sampan/apiserver/authz"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/rest"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/scheduler"
	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/etcd"
)

// Deps are what a control plane needs from its surroundings.
type Deps struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
}

// ControlPlane is one control plane in one process.
type ControlPlane struct {
	cfg  Config
	deps Deps

	etcd    *etcd.Server // nil with an external one
	store   *etcd.Store
	gate    *gate
	server  *apiserver.Server
	serving chan struct{} // closed when the API answers in process
	ready   chan struct{} // closed when what every cluster has is there

	whole                  bool // the scheduler and the controllers run here, too
	scheduler, controllers *vital
}

// New checks cfg and starts nothing.
func New(cfg Config, deps Deps) (*ControlPlane, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	c := &ControlPlane{cfg: cfg, deps: deps, serving: make(chan struct{}), ready: make(chan struct{}), scheduler: newVital(), controllers: newVital()}
	if cfg.Etcd == nil {
		remote, err := etcd.NewRemote(cfg.EtcdServers, cfg.EtcdTLS)
		c.store = remote
		return c, err
	}
	var err error
	if c.etcd, err = etcd.NewServer(*cfg.Etcd); err != nil {
		return nil, err
	}
	c.store = etcd.NewLocal(c.etcd)
	return c, nil
}

// Etcd is the member that runs in this process, nil with an external one.
func (c *ControlPlane) Etcd() *etcd.Server { return c.etcd }

// Serving waits until the API answers in process.
func (c *ControlPlane) Serving(ctx context.Context) error {
	select {
	case <-c.serving:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Client is the API as a user sees it, as function calls. Serving must have returned.
func (c *ControlPlane) Client(user string, groups ...string) client.Interface {
	u := &request.User{Name: user, Groups: append(groups, request.Authenticated)}
	if rest, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		namespace, _, _ := strings.Cut(rest, ":")
		u.Groups = append(u.Groups, request.ServiceAccounts, request.ServiceAccounts+":"+namespace)
	}
	agent := user[strings.LastIndexByte(user, ':')+1:]
	return c.everywhere(c.server.Local(u).As(agent), u, agent)
}

// Ready waits until the API server serves and all that must be in a cluster is.
func (c *ControlPlane) Ready(ctx context.Context) error {
	if err := c.Serving(ctx); err != nil {
		return err
	}
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errEtcdEnded = errors.New("etcd ended")

// Run serves, schedules and controls until ctx ends.
func (c *ControlPlane) Run(ctx context.Context) error {
	c.whole = true
	return c.run(ctx, c.actors)
}

// RunServer serves the API alone until ctx ends.
func (c *ControlPlane) RunServer(ctx context.Context) error { return c.run(ctx, func(*run.Group) {}) }

func (c *ControlPlane) run(ctx context.Context, more func(*run.Group)) error {
	g := run.New(ctx)
	if c.etcd != nil {
		g.Go("etcd", c.etcd.Run)
		if err := c.etcd.Ready(g.Context()); err != nil {
			g.Stop()
			return errors.Join(errEtcdEnded, err, g.Wait())
		}
		if err := c.settle(g.Context()); err != nil {
			g.Stop()
			return errors.Join(err, g.Wait())
		}
	}
	if err := c.start(g); err != nil {
		g.Stop()
		return errors.Join(err, g.Wait())
	}
	more(g)
	return g.Wait()
}

// start puts the parts together over a store that answers, and runs them in g.
func (c *ControlPlane) start(g *run.Group) error {
	ctx := g.Context()
	kinds, err := c.cfg.Offer.kinds()
	if err != nil {
		return err
	}
	registry := rest.NewRegistry(kinds)
	under, err := c.encrypted(g, registry)
	if err != nil {
		return err
	}
	store, err := cached(ctx, g, under, registry, c.deps)
	if err != nil {
		return err
	}
	if c.server, c.gate, err = newServer(ctx, &c.cfg, store, registry, c.deps, c.checks(), c.hooks()); err != nil {
		return err
	}
	privileged := request.WithUser(ctx, apiserver.Loopback())
	if err := c.gate.custom.Fill(privileged); err != nil {
		return err
	}
	if err := c.gate.ledger.Start(privileged); err != nil {
		return err
	}
	if err := c.gate.rbac.Fill(privileged); err != nil {
		return err
	}
	if err := c.gate.judges.fill(privileged); err != nil {
		return err
	}
	as := func(task func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			return task(request.WithUser(ctx, request.UserFrom(privileged)))
		}
	}
	above, _ := store.(storage.Compactor)
	g.Go("compactor", (&etcd.Compactor{Store: c.store, Above: above, Log: c.deps.Log}).Run)
	g.Go("rbac", as(c.gate.rbac.Run))
	g.Go("admission configurations", as(c.gate.judges.run))
	g.Go("custom resources", as(c.gate.custom.Run))
	c.runAccess(g, as)
	g.Go("node authorizer", as(c.gate.node.Run))
	g.Go("aggregator", as(c.gate.aggregator.Run))
	g.Go("service addresses", as(c.gate.ledger.Run))
	g.Go("default service range", as(func(ctx context.Context) error { return keepServiceRange(ctx, c.gate.back, c.cfg.ServiceCIDRs) }))
	g.Go("api server", c.server.Run)
	if !c.cfg.Alone {
		g.Go("leases of API servers", as(c.runMasters))
	}
	if c.cfg.InsecurePort > 0 {
		g.Go("insecure port", c.insecure)
	}
	close(c.serving)
	return nil
}

// How fast the actors of one control plane in one process succeed each other: a
// rival finds the leader gone after 5 s, and looks every half second or so.
const (
	leaseDuration = 5 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// actors runs the scheduler and the controllers.
func (c *ControlPlane) actors(g *run.Group) {
	a := &Actors{
		As:  func(user string) client.Interface { return c.Client(user) },
		Log: c.deps.Log, Metrics: c.deps.Metrics, Host: c.cfg.Host,
	}
	election := func(name string) client.ElectionConfig {
		return client.ElectionConfig{Disabled: c.cfg.Alone, Name: name, Identity: c.cfg.Host,
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod}
	}
	if c.cfg.Alone { // never loses its lead: one set of mirrors for all
		a.Mirrors = client.NewMirrors(c.Client(ControllerManagerUser, request.Masters))
		g.Go("mirrors", a.Mirrors.Run)
	}
	g.Go("scheduler", func(ctx context.Context) error {
		if err := c.Ready(ctx); err != nil {
			return err
		}
		cfg := scheduler.Config{Election: election("kube-scheduler")}
		if err := cfg.Check(); err != nil {
			return err
		}
		return c.scheduler.during(func() error { return a.RunScheduler(ctx, cfg) })
	})
	g.Go("controllers", func(ctx context.Context) error {
		if err := c.Ready(ctx); err != nil {
			return err
		}
		cfg := controller.Config{
			AllocateNodeCIDRs: true, ClusterCIDR: c.cfg.ClusterCIDR.String(), ServiceCIDR: join(c.cfg.ServiceCIDRs),
			Election: election("kube-controller-manager"), OwnAccounts: true,
		}
		if err := cfg.Check(); err != nil {
			return err
		}
		secrets := Secrets{RootCA: c.cfg.ClientCA.CertPEM(), Signer: c.cfg.ClientCA, AccountKey: c.cfg.AccountKey}
		return c.controllers.during(func() error { return a.RunControllers(ctx, cfg, secrets) })
	})
}

func join(ps []netip.Prefix) string {
	var s []string
	for _, p := range ps {
		s = append(s, p.String())
	}
	return strings.Join(s, ",")
}

// hooks are what must be in a cluster before it is ready. The roles come last:
// the actors wait for them.
func (c *ControlPlane) hooks() []request.Hook {
	return []request.Hook{
		{Name: "scheduling/bootstrap-system-priority-classes", Fn: systemPriorities},
		{Name: "start-kubernetes-service-cidr-controller", Fn: serviceRange(c.cfg.ServiceCIDRs)},
		c.registration(),
		c.legacyTokens(),
		c.publishTrust(),
		{Name: "rbac/bootstrap-roles", Fn: func(ctx context.Context, b request.Backend) error {
			if err := authz.Bootstrap(ctx, b); err != nil {
				return err
			}
			if err := c.gate.rbac.Fill(ctx); err != nil {
				return err
			}
			close(c.ready)
			return nil
		}},
	}
}

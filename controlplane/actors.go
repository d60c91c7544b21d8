package controlplane

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/scheduler"
)

// Users the actors are, as upstream names them.
const (
	SchedulerUser         = "system:kube-scheduler"
	ControllerManagerUser = "system:kube-controller-manager"
	accountPrefix         = "system:serviceaccount:kube-system:"
)

// Actors are the scheduler and the controllers of one process. What they mirror
// they share with each other and with whoever else is in the process.
type Actors struct {
	// As is the API as a user sees it.
	As func(user string) client.Interface
	// Mirrors, when not nil, are shared and already run. A process that may lose
	// its lead makes its own for each term.
	Mirrors *client.Mirrors
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Host    string
}

// mirrors returns the mirrors of one term: the shared ones, or new ones run in g.
func (a *Actors) mirrors(g *run.Group, user string) *client.Mirrors {
	if a.Mirrors != nil {
		return a.Mirrors
	}
	m := client.NewMirrors(a.As(user))
	g.Go("mirrors", m.Run)
	return m
}

// RunScheduler schedules, whenever this process leads, until ctx ends.
func (a *Actors) RunScheduler(ctx context.Context, cfg scheduler.Config) error {
	c := a.As(SchedulerUser)
	return client.Elect(ctx, c, cfg.Election, func(ctx context.Context) error {
		g := run.New(ctx)
		s, err := scheduler.New(cfg, scheduler.Deps{Client: c, Mirrors: a.mirrors(g, SchedulerUser), Metrics: a.Metrics, Log: a.Log, Host: a.Host})
		if err != nil {
			return err
		}
		g.Go("scheduler", s.Run)
		return g.Wait()
	})
}

// RunControllers runs the enabled control loops, whenever this process leads,
// until ctx ends. A loop that fails takes the others along: they begin anew
// together, with fresh eyes.
func (a *Actors) RunControllers(ctx context.Context, cfg controller.Config, secrets Secrets) error {
	metrics := controller.NewMetrics(a.Metrics)
	return client.Elect(ctx, a.As(ControllerManagerUser), cfg.Election, func(ctx context.Context) error {
		g := run.New(ctx)
		d := controller.Deps{
			Mirrors: a.mirrors(g, ControllerManagerUser), Metrics: metrics, Log: a.Log,
			As:  func(name string) client.Interface { return a.As(accountPrefix + name) },
			Own: a.As(ControllerManagerUser),
		}
		for _, l := range loops {
			if !cfg.Enabled(l.name, l.off) {
				continue
			}
			c, err := l.make(d, cfg, secrets)
			if err != nil {
				return err
			}
			if c != nil {
				g.Go(l.name, c.Run)
			}
		}
		return g.Wait()
	})
}

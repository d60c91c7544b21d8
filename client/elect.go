package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// ElectionConfig says which Lease decides who leads, and how fast. Zero
// durations are upstream's 15, 10 and 2 seconds.
type ElectionConfig struct {
	Disabled  bool   // lead at once, for a component that has no rival
	Namespace string // of the Lease; "" is kube-system
	Name      string // of the Lease: kube-scheduler, kube-controller-manager
	Identity  string // of this candidate, unique

	LeaseDuration time.Duration // a lease not renewed for so long may be taken
	RenewDeadline time.Duration // a leader that could not renew for so long steps down
	RetryPeriod   time.Duration // between tries to get or to renew

	Events *EventRecorder // told of "became leader"; may be nil
}

// Check fills in defaults and tells what is wrong.
func (c *ElectionConfig) Check() error {
	if c.Namespace == "" {
		c.Namespace = metav1.NamespaceSystem
	}
	for d, v := range map[*time.Duration]time.Duration{&c.LeaseDuration: 15 * time.Second, &c.RenewDeadline: 10 * time.Second, &c.RetryPeriod: 2 * time.Second} {
		if *d == 0 {
			*d = v
		}
	}
	switch {
	case c.Disabled:
		return nil
	case c.Name == "" || c.Identity == "":
		return errors.New("leader election: a lease name and an identity are required")
	case c.LeaseDuration <= c.RenewDeadline:
		return errors.New("leader election: leaseDuration must be greater than renewDeadline")
	case float64(c.RenewDeadline) <= 1.2*float64(c.RetryPeriod):
		return errors.New("leader election: renewDeadline must be greater than retryPeriod*1.2")
	}
	return nil
}

// Elect runs lead whenever this candidate holds the lease, and ends its context
// when the lease is lost, waits for it and tries again. It returns when ctx
// ends or lead returns by itself.
func Elect(ctx context.Context, c Interface, cfg ElectionConfig, lead func(context.Context) error) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	if cfg.Disabled {
		return lead(ctx)
	}
	e := &election{ElectionConfig: cfg, leases: Of[coordinationv1.Lease](c, cfg.Namespace), log: slog.Default().With("room", "client", "lease", cfg.Namespace+"/"+cfg.Name)}
	for {
		if err := e.acquire(ctx); err != nil {
			return err
		}
		lost, err := e.hold(ctx, lead)
		if !lost {
			return err
		}
		e.log.Warn("leadership lost; trying again")
	}
}

// election is one candidate's view of the lease.
type election struct {
	ElectionConfig
	leases Typed[coordinationv1.Lease]
	log    *slog.Logger

	seen   *coordinationv1.Lease // as last observed
	seenAt time.Time             // when it last changed, by our own clock: clocks of machines differ
}

// acquire returns once the lease is ours.
func (e *election) acquire(ctx context.Context) error {
	for {
		if e.try(ctx) {
			e.log.Info("became leader", "identity", e.Identity)
			if e.Events != nil {
				e.Events.Event(e.seen, "Normal", "LeaderElection", "%s became leader", e.Identity)
			}
			return nil
		}
		if err := clock.Sleep(ctx, clock.Jitter(e.RetryPeriod, 1.2)); err != nil {
			return err
		}
	}
}

// hold runs lead while renewing; lost says that the lease, not lead, ended it.
func (e *election) hold(ctx context.Context, lead func(context.Context) error) (lost bool, err error) {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	run.Detach(leading, "leading "+e.Name, func(ctx context.Context) {
		err := errors.New("leader panicked")
		defer func() { done <- err }()
		err = lead(ctx)
	})
	ticker := clock.NewTicker(e.RetryPeriod)
	defer ticker.Stop()
	renewed := clock.Now()
	for {
		select {
		case err := <-done:
			e.release(ctx)
			return false, err
		case <-ctx.Done():
			err := <-done
			e.release(ctx)
			if err == nil {
				err = ctx.Err()
			}
			return false, err
		case <-ticker.C:
		}
		try, cancel := context.WithDeadline(ctx, renewed.Add(e.RenewDeadline))
		ok := e.try(try)
		cancel()
		if ok {
			renewed = clock.Now()
			continue
		}
		if clock.Since(renewed) >= e.RenewDeadline || e.holder() != e.Identity {
			stop()
			<-done
			return true, nil
		}
	}
}

func (e *election) holder() string {
	if e.seen == nil || e.seen.Spec.HolderIdentity == nil {
		return ""
	}
	return *e.seen.Spec.HolderIdentity
}

// promised is how long the holder may be silent: what it said itself when it took
// the lease, since it may count on that, or what is configured here.
func (e *election) promised() time.Duration {
	if e.seen == nil || e.seen.Spec.LeaseDurationSeconds == nil {
		return e.LeaseDuration
	}
	return time.Duration(*e.seen.Spec.LeaseDurationSeconds) * time.Second
}

func (e *election) observe(l *coordinationv1.Lease) {
	if e.seen == nil || e.seen.ResourceVersion != l.ResourceVersion {
		e.seen, e.seenAt = l, clock.Now()
	}
}

// try gets or renews the lease and says whether it is ours.
func (e *election) try(ctx context.Context) bool {
	now := metav1.MicroTime{Time: clock.Now()}
	seconds := int32(max(e.LeaseDuration/time.Second, 1))
	old, err := e.leases.Get(ctx, e.Name)
	if apierrors.IsNotFound(err) {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: e.Name, Namespace: e.Namespace}}
		transitions := int32(0)
		l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &e.Identity, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: &transitions}
		return e.wrote(e.leases.Create(ctx, l))
	}
	if err != nil {
		e.log.Debug("read lease", "err", err)
		return false
	}
	e.observe(old)
	holder := e.holder()
	if holder != "" && holder != e.Identity && clock.Now().Before(e.seenAt.Add(e.promised())) {
		return false
	}
	l := old.DeepCopy()
	if holder != e.Identity {
		n := int32(1)
		if l.Spec.LeaseTransitions != nil {
			n += *l.Spec.LeaseTransitions
		}
		l.Spec.LeaseTransitions, l.Spec.AcquireTime = &n, &now
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &e.Identity, &seconds, &now
	return e.wrote(e.leases.Update(ctx, l))
}

func (e *election) wrote(l *coordinationv1.Lease, err error) bool {
	if err != nil {
		e.log.Debug("write lease", "err", err)
		return false
	}
	e.observe(l)
	return true
}

// release lets the next candidate lead at once.
func (e *election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.RetryPeriod)
	defer cancel()
	if e.holder() != e.Identity {
		return
	}
	l := e.seen.DeepCopy()
	nobody, one := "", int32(1)
	now := metav1.MicroTime{Time: clock.Now()}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &nobody, &one, &now
	if _, err := e.leases.Update(ctx, l); err != nil {
		e.log.Debug("release lease", "err", fmt.Errorf("%s: %w", e.Name, err))
	}
}

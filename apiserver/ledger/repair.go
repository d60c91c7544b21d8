package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/storage"
)

const (
	repairEvery = 3 * time.Minute // upstream's
	// An address without its service may belong to a request under way.
	leakAge = time.Minute
	retry   = 5 * time.Second
)

func services() schema.GroupResource { return schema.GroupResource{Resource: "services"} }

// Start reads the books and makes them agree with the services there are.
// Nothing may be taken before it returned.
func (l *Ledger) Start(ctx context.Context) error {
	if err := errors.Join(l.readRanges(ctx), l.fill(ctx)); err != nil {
		return err
	}
	list, err := l.back.List(ctx, services(), "")
	if err != nil {
		return fmt.Errorf("ledger: list services: %w", err)
	}
	for _, o := range list {
		l.observe(nil, o)
	}
	_, err = l.repair(ctx, nil)
	return err
}

// Run keeps the books right until ctx ends.
func (l *Ledger) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("ledger services", func(ctx context.Context) error { return l.back.Changes(ctx, services(), l.observe) })
	g.Go("ledger ranges", func(ctx context.Context) error {
		err := l.back.Changes(ctx, serviceCIDRs(), l.observeRange)
		if apierrors.IsNotFound(err) { // the kind is switched off
			return nil
		}
		return err
	})
	g.Go("ledger repair", func(ctx context.Context) error {
		var suspects map[int32]bool
		for wait := repairEvery; clock.Sleep(ctx, wait) == nil; {
			next, err := l.repair(ctx, suspects)
			wait = repairEvery
			if err != nil && ctx.Err() == nil {
				slog.Warn("repair of service addresses and ports failed", "err", err)
				wait = retry
				continue
			}
			suspects = next
		}
		return nil
	})
	return g.Wait()
}

// repair claims what services use and nobody has written down, and frees
// addresses and ports without a service. A port is freed when two repairs in a
// row found it unused (suspects are the first one's).
func (l *Ledger) repair(ctx context.Context, suspects map[int32]bool) (map[int32]bool, error) {
	list, err := l.back.List(ctx, services(), "")
	if err != nil {
		return nil, fmt.Errorf("ledger: list services: %w", err)
	}
	owners := map[netip.Addr]string{}
	ports := map[int32]bool{}
	for _, o := range list {
		s, ok := o.(*corev1.Service)
		if !ok {
			continue
		}
		for _, ip := range s.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(ip); err == nil {
				owners[a] = s.Namespace + "/" + s.Name
			}
		}
		for _, u := range portsOf(s) {
			ports[u.port] = true
		}
	}
	errs := []error{l.claimMissing(ctx, owners), l.freeLeaked(ctx, owners)}
	unused := map[int32]bool{}
	errs = append(errs, l.changePorts(ctx, func(bits *big.Int) (bool, error) {
		changed := false
		clear(unused)
		for i := range l.portCount() {
			port := l.c.FirstPort + int32(i)
			switch {
			case ports[port] && bits.Bit(i) == 0:
				bits.SetBit(bits, i, 1)
				changed = true
			case !ports[port] && bits.Bit(i) == 1 && suspects[port]:
				bits.SetBit(bits, i, 0)
				changed = true
			case !ports[port] && bits.Bit(i) == 1:
				unused[port] = true
			}
		}
		return changed, nil
	}))
	return unused, errors.Join(errs...)
}

func (l *Ledger) claimMissing(ctx context.Context, owners map[netip.Addr]string) error {
	var errs []error
	for a, owner := range owners {
		l.mu.Lock()
		known := l.taken[a]
		l.mu.Unlock()
		if known {
			continue
		}
		if !l.within(a) {
			slog.Warn("a service's address is in no ServiceCIDR: make one, or the service anew", "service", owner, "address", a)
			continue
		}
		if err := l.claim(ctx, a, owner); err != nil && !errors.Is(err, ErrAddrTaken) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Ledger) freeLeaked(ctx context.Context, owners map[netip.Addr]string) error {
	page, err := l.store.List(ctx, addressPrefix, storage.ListOptions{})
	if err != nil {
		return fmt.Errorf("ledger: list addresses: %w", err)
	}
	var errs []error
	for _, r := range page.Records {
		a, err := netip.ParseAddr(strings.TrimPrefix(r.Key, addressPrefix))
		if err != nil || owners[a] != "" {
			continue
		}
		var obj networkingv1.IPAddress
		if err := api.DecodeInto(api.FormatProtobuf, r.Value, &obj); err != nil {
			errs = append(errs, fmt.Errorf("ledger: decode %s: %w", r.Key, err))
			continue
		}
		mine := obj.Labels[networkingv1.LabelManagedBy] == managedBy
		if !mine || clock.Since(obj.CreationTimestamp.Time) < leakAge {
			continue
		}
		slog.Info("freeing a service address without a service", "address", a)
		errs = append(errs, l.freeIP(ctx, a.String()))
	}
	return errors.Join(errs...)
}

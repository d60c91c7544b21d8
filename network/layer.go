package network

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// again is how often the kernel's state is looked at when nothing tells of a change.
const again = time.Minute

// layer keeps one overlay as the node and its peers are now.
type layer struct {
	backend Backend
	network netip.Prefix
	// find returns the link to other nodes and this node's address on it.
	find    func() (netlink.Link, netip.Addr, error)
	log     *slog.Logger
	metrics *metrics

	prober *prober

	at      site
	over    overlay
	peers   map[netip.Prefix]Peer
	refused map[string]string
}

// newLayer is a layer whose findings become conditions of the node that name
// returns, and events; with no Client they are metrics and logs.
func newLayer(backend Backend, network netip.Prefix, deps Deps, node string) *layer {
	m := newMetrics(deps.Metrics)
	l := &layer{backend: backend, network: network, log: deps.Log, metrics: m, prober: &prober{log: deps.Log, metrics: m, wake: newWaker()}}
	l.prober.tell = func(ctx context.Context, s scene, all []finding) {
		c := s.condition(all)
		if c.Status == corev1.ConditionFalse {
			l.log.Warn("network: the overlay does not reach all nodes", "reason", c.Reason, "message", c.Message)
		}
		if deps.Client == nil {
			return
		}
		self, ok := deps.Nodes.Get("", node)
		if !ok || !lacks(self, c) {
			return
		}
		if err := patchStatus(ctx, deps.Client, node, nil, c); err != nil {
			l.log.Warn("network: the verdict on the overlay is not told", "err", err)
		}
	}
	l.prober.repaired = func(link string, about Peer) {
		if deps.Events == nil || deps.Nodes == nil {
			return
		}
		if self, ok := deps.Nodes.Get("", node); ok {
			deps.Events.Event(self, corev1.EventTypeWarning, "OverlayChecksumOffload",
				"Packets through %s arrived with spoiled checksums at node %s: checksum offload of %s was switched off", link, about.Name, link)
		}
	}
	return l
}

// lay makes the overlay for the node's range, or makes it again when the node's
// address or link is another; fresh says that it did.
func (l *layer) lay(pods netip.Prefix) (fresh bool, err error) {
	under, local, err := l.find()
	if err != nil {
		return false, err
	}
	if l.over != nil && l.at.pods == pods && l.at.local == local && l.over.follows(under) {
		return false, nil
	}
	if l.over != nil {
		l.log.Info("network: the node's link, address or range changed, the overlay is made again", "link", under.Attrs().Name, "address", local.String(), "pods", pods.String())
		l.leave()
	}
	s := site{backend: l.backend, under: under, local: local, network: l.network, pods: pods}
	if l.over, err = s.open(); err != nil {
		l.over = nil
		return false, err
	}
	l.at = s
	return true, nil
}

// sync makes peers reachable.
func (l *layer) sync(peers map[netip.Prefix]Peer, refused map[string]string) error {
	if !maps.Equal(refused, l.refused) {
		for name, why := range refused {
			l.log.Warn("network: a node's pods are not reached", "node", name, "why", why)
		}
		l.refused = refused
	}
	changed, err := l.over.sync(peers)
	l.metrics.synced(len(peers), changed, err)
	if err != nil {
		// What it stands on may be gone.
		l.leave()
		return err
	}
	if changed {
		l.log.Info("network: routes follow the nodes", "peers", len(peers))
	}
	for pods, p := range l.peers {
		if peers[pods].Name != p.Name {
			l.metrics.forget(p.Name)
		}
	}
	l.peers = peers
	l.prober.see(scene{l.at, peers})
	return nil
}

// run follows changes with sync, and tests what it leads to, until ctx ends.
func (l *layer) run(ctx context.Context, w waker, sync func(context.Context) error) error {
	g := run.New(ctx)
	g.Go("overlay-test", l.prober.run)
	g.Go("overlay-sync", func(ctx context.Context) error {
		watchKernel(ctx, w, l.log)
		defer l.leave()
		return follow(ctx, w, l.log, sync)
	})
	return g.Wait()
}

func (l *layer) leave() {
	if l.over != nil {
		l.over.leave()
		l.over = nil
	}
}

// forwarding lets the kernel pass packets on. Where the setting is not ours to
// make, in a container, it must be made already.
func forwarding() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	return nil
}

// waker is a bell: rung any number of times, it is heard once.
type waker chan struct{}

func newWaker() waker { return make(chan struct{}, 1) }

func (w waker) ring() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// follow calls sync now, whenever the bell rings, and once in a while; after a
// failure again, later and later.
func follow(ctx context.Context, w waker, log *slog.Logger, sync func(context.Context) error) error {
	policy, failures := backoff.Policy{First: 200 * time.Millisecond, Max: 30 * time.Second}, 0
	for {
		wait, err := again, sync(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failures = failures + 1; err == nil {
			failures = 0
		} else {
			log.Error("network: not as wanted, trying again", "err", err)
			wait = policy.After(failures)
		}
		t := clock.NewTimer(wait)
		select {
		case <-t.C:
		case <-w:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// watchKernel rings when a link, an address or a route of ours changed under us.
// Pods' cables are none of its business.
func watchKernel(ctx context.Context, w waker, log *slog.Logger) {
	links, addrs, routes := make(chan netlink.LinkUpdate, 16), make(chan netlink.AddrUpdate, 16), make(chan netlink.RouteUpdate, 16)
	failed := func(what string, err error) {
		if err != nil {
			log.Warn("network: changes of "+what+" are seen only once in a while", "err", err)
		}
	}
	failed("links", netlink.LinkSubscribe(links, ctx.Done()))
	failed("addresses", netlink.AddrSubscribe(addrs, ctx.Done()))
	failed("routes", netlink.RouteSubscribe(routes, ctx.Done()))
	run.Detach(ctx, "kernel-watch", func(ctx context.Context) {
		for {
			select {
			case u := <-links:
				if u.Link != nil && u.Type() != "veth" {
					w.ring()
				}
			case <-addrs:
				w.ring()
			case u := <-routes:
				if u.Type == unix.RTM_DELROUTE && u.Protocol == routeProtocol {
					w.ring()
				}
			case <-ctx.Done():
				return
			}
		}
	})
}

package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/network/cni"
)

// confFile is the CNI configuration's name; it sorts as flannel's does.
const confFile = "10-sampan.conflist"

// Deps are what a network needs from its surroundings. Nodes must be run by the
// caller; Metrics and Events may be nil.
type Deps struct {
	Client  client.Interface
	Nodes   client.Watchable[corev1.Node]
	Events  *client.EventRecorder
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Network is one node's pod network.
type Network struct {
	cfg   Config
	deps  Deps
	wake  waker
	layer *layer
}

// New checks cfg and starts nothing.
func New(cfg Config, deps Deps) (*Network, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	n := &Network{cfg: cfg, deps: deps, wake: newWaker()}
	n.layer = newLayer(cfg.backend(), cfg.ClusterCIDR.Masked(), deps, cfg.NodeName)
	n.layer.find = func() (netlink.Link, netip.Addr, error) {
		link, err := nodeLink(cfg.NodeIP)
		return link, cfg.NodeIP, err
	}
	return n, nil
}

// Run keeps the node's network as the Node objects want it until ctx ends.
// What it set up stays: pods go on talking while the node agent restarts, but
// for the backend udp, whose packets this process carries.
func (n *Network) Run(ctx context.Context) error {
	if n.cfg.Backend == None {
		if err := n.withdraw(); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	n.deps.Nodes.OnChange(func(old, now *corev1.Node) {
		if matters(old, now) {
			n.wake.ring()
		}
	})
	if err := n.deps.Nodes.WaitSynced(ctx); err != nil {
		return err
	}
	return n.layer.run(ctx, n.wake, n.sync)
}

// withdraw takes our CNI configuration away, which would go before others'.
func (n *Network) withdraw() error {
	if err := os.Remove(filepath.Join(n.cfg.CNIConfDir, confFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("network: backend %s: %w", None, err)
	}
	return nil
}

func (n *Network) sync(ctx context.Context) error {
	self, ok := n.deps.Nodes.Get("", n.cfg.NodeName)
	if !ok || self.Spec.PodCIDR == "" {
		return nil // not registered yet, or no range yet: a change will wake us
	}
	pods, err := netip.ParsePrefix(self.Spec.PodCIDR)
	if err != nil {
		return fmt.Errorf("network: node %s: podCIDR: %w", n.cfg.NodeName, err)
	}
	fresh, err := n.layer.lay(pods)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if fresh {
		if err := n.furnish(pods); err != nil {
			n.layer.leave()
			return fmt.Errorf("network: %w", err)
		}
		n.deps.Log.Info("network: ready", "pods", pods.String(), "backend", n.cfg.Backend)
	}
	var notes annotations
	if err := n.layer.sync(notes.Peers(n.deps.Nodes.List(""), n.cfg.NodeName, n.layer.backend, true)); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return n.publish(ctx, self, notes)
}

// publish tells the other nodes how this one is reached.
func (n *Network) publish(ctx context.Context, self *corev1.Node, notes annotations) error {
	if n.deps.Client == nil {
		return nil
	}
	want := missing(self, notes.write(leaseOf(n.layer.backend, notes.overwrite(self, n.cfg.NodeIP), n.cfg.NodeIP)))
	var conditions []corev1.NodeCondition
	if c := available(); lacks(self, c) {
		conditions = append(conditions, c)
	}
	return patchStatus(ctx, n.deps.Client, n.cfg.NodeName, want, conditions...)
}

// furnish sets up everything that depends on this node's own range; the CNI
// configuration last, for it is what makes the node Ready.
func (n *Network) furnish(pods netip.Prefix) error {
	if err := forwarding(); err != nil {
		return err
	}
	mtu := n.layer.over.mtu()
	gateway := netip.PrefixFrom(pods.Masked().Addr().Next(), pods.Bits())
	bridge, err := cni.EnsureBridge(n.cfg.Bridge, gateway, mtu)
	if err != nil {
		return err
	}
	if err := n.routeServices(bridge); err != nil {
		return err
	}
	if err := masquerade(pods, n.layer.network); err != nil {
		return err
	}
	if err := replaceFile(n.cfg.SubnetFile, []byte(subnetEnv(n.layer.network, pods, mtu, true))); err != nil {
		return err
	}
	return n.writeConf(pods, mtu)
}

// routeServices gives the node's own packets to service addresses a way out of
// routing: they are readdressed by the proxy's output hook, which comes after it.
func (n *Network) routeServices(bridge netlink.Link) error {
	if !n.cfg.ServiceCIDR.IsValid() {
		return nil
	}
	err := netlink.RouteReplace(&netlink.Route{
		Dst: ipNet(n.cfg.ServiceCIDR.Masked()), LinkIndex: bridge.Attrs().Index, Src: n.cfg.NodeIP.AsSlice(), Scope: netlink.SCOPE_LINK,
	})
	if err != nil {
		return fmt.Errorf("route to services %s: %w", n.cfg.ServiceCIDR, err)
	}
	return nil
}

func (n *Network) writeConf(pods netip.Prefix, mtu int) error {
	conf, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.1.0",
		"name":       "sampan",
		"plugins": []any{map[string]any{
			"type": cni.PluginName, "bridge": n.cfg.Bridge, "subnet": pods.Masked().String(),
			"mtu": mtu, "stateDir": n.cfg.CNIStateDir,
			"capabilities": map[string]bool{"portMappings": true},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(n.cfg.CNIConfDir, confFile), conf)
}

// matters says whether a change of a node is one of how its pods are reached:
// nodes tell of their health every few seconds.
func matters(old, now *corev1.Node) bool {
	if old == nil || now == nil || old.Spec.PodCIDR != now.Spec.PodCIDR {
		return true
	}
	was, _ := InternalIP(old)
	is, _ := InternalIP(now)
	if was != is || len(old.Annotations) != len(now.Annotations) {
		return true
	}
	for k, v := range now.Annotations {
		if old.Annotations[k] != v {
			return true
		}
	}
	return lacks(now, available())
}

package network

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/network/cni"
)

// confFile is the CNI configuration's name; it sorts as flannel's does.
const confFile = "10-sampan.conflist"

// Network is one node's pod network.
type Network struct {
	cfg    Config
	nodes  client.Watchable[corev1.Node]
	log    *slog.Logger
	wake   chan struct{}
	laid   netip.Prefix // the range the node is set up for
	routes *overlay
}

// New checks cfg and starts nothing. nodes must be running.
func New(cfg Config, nodes client.Watchable[corev1.Node], log *slog.Logger) (*Network, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return &Network{cfg: cfg, nodes: nodes, log: log, wake: make(chan struct{}, 1)}, nil
}

// Run keeps the node's network as the Node objects want it until ctx ends.
// What it set up stays: pods go on talking while the node agent restarts.
func (n *Network) Run(ctx context.Context) error {
	n.nodes.OnChange(func(_, _ *corev1.Node) {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	})
	if err := n.nodes.WaitSynced(ctx); err != nil {
		return err
	}
	policy, failures := backoff.Policy{First: 200 * time.Millisecond, Max: 30 * time.Second}, 0
	for {
		err := n.sync()
		if err == nil {
			failures = 0
			select {
			case <-n.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		failures++
		n.log.Error("network: not as wanted, trying again", "err", err)
		if err := clock.Sleep(ctx, policy.After(failures)); err != nil {
			return err
		}
	}
}

func (n *Network) sync() error {
	self, ok := n.nodes.Get("", n.cfg.NodeName)
	if !ok || self.Spec.PodCIDR == "" {
		return nil // not registered yet, or no range yet: a change will wake us
	}
	pods, err := netip.ParsePrefix(self.Spec.PodCIDR)
	if err != nil {
		return fmt.Errorf("network: node %s: podCIDR: %w", n.cfg.NodeName, err)
	}
	if n.laid != pods {
		if err := n.lay(pods); err != nil {
			return fmt.Errorf("network: %w", err)
		}
		n.laid = pods
		n.log.Info("network: ready", "pods", pods.String(), "backend", n.cfg.Backend)
	}
	return n.routes.sync(Peers(n.nodes.List(""), n.cfg.NodeName))
}

// lay sets up everything that depends on this node's own range; the CNI
// configuration last, for it is what makes the node Ready.
func (n *Network) lay(pods netip.Prefix) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	var err error
	if n.routes, err = openOverlay(n.cfg, pods); err != nil {
		return err
	}
	mtu, err := n.routes.mtu()
	if err != nil {
		return err
	}
	gateway := netip.PrefixFrom(pods.Masked().Addr().Next(), pods.Bits())
	bridge, err := cni.EnsureBridge(n.cfg.Bridge, gateway, mtu)
	if err != nil {
		return err
	}
	if err := n.routeServices(bridge); err != nil {
		return err
	}
	if err := masquerade(pods, n.cfg.ClusterCIDR); err != nil {
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
		Dst:       &net.IPNet{IP: n.cfg.ServiceCIDR.Masked().Addr().AsSlice(), Mask: net.CIDRMask(n.cfg.ServiceCIDR.Bits(), 32)},
		LinkIndex: bridge.Attrs().Index, Src: n.cfg.NodeIP.AsSlice(), Scope: netlink.SCOPE_LINK,
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
	if err := os.MkdirAll(n.cfg.CNIConfDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(n.cfg.CNIConfDir, confFile)
	if err := os.WriteFile(path+".tmp", conf, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

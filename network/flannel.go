package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// FlannelConfig is what the program flanneld is told.
type FlannelConfig struct {
	Links       Links
	SubnetFile  string // SubnetFile if empty
	IPMasq      bool
	Annotations string // the prefix of annotations, DefaultAnnotations if empty
	// NodeName makes nodes' annotations the leases, NetConfPath being the file of
	// the network's configuration; without it Etcd has both.
	NodeName, NetConfPath string
	// SetNetworkUnavailable tells in the node's status that its network is there.
	SetNetworkUnavailable bool
	Etcd                  Etcd
	RenewMargin           time.Duration // how long before its end a lease in etcd is renewed
}

// Check says what is wrong with a configuration.
func (c FlannelConfig) Check() error {
	errs := []error{c.Links.Check()}
	if c.NodeName == "" {
		errs = append(errs, c.Etcd.Check())
	}
	if c.RenewMargin < 0 || c.RenewMargin >= leaseTTL {
		errs = append(errs, fmt.Errorf("subnet-lease-renew-margin: %s: must be between 0 and %s", c.RenewMargin, leaseTTL))
	}
	return errors.Join(errs...)
}

// Flannel is the overlay as a program of its own: it connects no pods, but says
// in subnet.env what the plugins need to.
type Flannel struct {
	cfg   FlannelConfig
	deps  Deps
	notes annotations
	wake  waker
	conf  NetConf
	layer *layer
	etcd  *etcdSubnets // nil with nodes' annotations

	mu    sync.Mutex
	told  bool   // etcd told its leases
	pairs []pair // as it last did
}

// NewFlannel checks cfg and starts nothing. deps' Client and Nodes are used with
// a NodeName only.
func NewFlannel(cfg FlannelConfig, deps Deps) (*Flannel, error) {
	if cfg.SubnetFile == "" {
		cfg.SubnetFile = SubnetFile
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return &Flannel{cfg: cfg, deps: deps, notes: annotations(cfg.Annotations), wake: newWaker()}, nil
}

// Run keeps the overlay as the leases want it until ctx ends.
func (f *Flannel) Run(ctx context.Context) error {
	g := run.New(ctx)
	sync, err := f.begin(ctx, g)
	if err != nil {
		return err
	}
	f.layer = newLayer(f.conf.Backend, f.conf.Network, f.deps, f.cfg.NodeName)
	f.layer.find = f.find
	f.deps.Log.Info("Found network config", "network", f.conf.Network.String(), "backend", f.conf.Backend.Type)
	g.Go("overlay", func(ctx context.Context) error { return f.layer.run(ctx, f.wake, sync) })
	return g.Wait()
}

// begin reads the network's configuration and starts to watch leases.
func (f *Flannel) begin(ctx context.Context, g *run.Group) (func(context.Context) error, error) {
	if f.cfg.NodeName != "" {
		text, err := os.ReadFile(f.cfg.NetConfPath)
		if err != nil {
			return nil, fmt.Errorf("failed to read net conf: %w", err)
		}
		if f.conf, err = ParseNetConf(text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.cfg.NetConfPath, err)
		}
		f.deps.Nodes.OnChange(func(old, now *corev1.Node) {
			if matters(old, now) {
				f.wake.ring()
			}
		})
		return f.syncNodes, f.assigned(ctx)
	}
	c, err := newCaller(f.cfg.Etcd)
	if err != nil {
		return nil, err
	}
	r, conf, err := findRegistry(ctx, c, f.deps.Log)
	if err != nil {
		return nil, err
	}
	f.conf, f.etcd = conf, &etcdSubnets{registry: r, margin: f.cfg.RenewMargin, log: f.deps.Log, conf: conf}
	g.Go("subnets", func(ctx context.Context) error {
		return f.etcd.watch(ctx, func(pairs []pair) {
			f.mu.Lock()
			f.told, f.pairs = true, pairs
			f.mu.Unlock()
			f.wake.ring()
		})
	})
	return f.syncEtcd, nil
}

// assigned waits until the node has a range. Who hands them out needs a moment;
// a cluster in which nobody does must say so.
func (f *Flannel) assigned(ctx context.Context) error {
	if err := f.deps.Nodes.WaitSynced(ctx); err != nil {
		return err
	}
	for start := clock.Now(); ; {
		n, ok := f.deps.Nodes.Get("", f.cfg.NodeName)
		if ok && n.Spec.PodCIDR != "" {
			return nil
		}
		if clock.Since(start) > 30*time.Second {
			if !ok {
				return fmt.Errorf("failed to acquire lease: node %q not found", f.cfg.NodeName)
			}
			return fmt.Errorf("failed to acquire lease: node %q pod cidr not assigned", f.cfg.NodeName)
		}
		if err := clock.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// find is the link to other nodes as it is now.
func (f *Flannel) find() (netlink.Link, netip.Addr, error) {
	var known netip.Addr
	if f.cfg.NodeName != "" {
		if n, ok := f.deps.Nodes.Get("", f.cfg.NodeName); ok {
			known, _ = InternalIP(n)
		}
	}
	return f.cfg.Links.find(known)
}

// lay makes the overlay for the node's range and, once pods can be connected,
// says so in the subnet file.
func (f *Flannel) lay(pods netip.Prefix) error {
	fresh, err := f.layer.lay(pods)
	if err != nil || !fresh {
		return err
	}
	if err := forwarding(); err != nil {
		f.deps.Log.Warn("network: the bridge plugin switches it on", "err", err)
	}
	if f.cfg.IPMasq {
		err = masquerade(pods, f.conf.Network)
	}
	if err == nil {
		err = replaceFile(f.cfg.SubnetFile, []byte(subnetEnv(f.conf.Network, pods, f.layer.over.mtu(), f.cfg.IPMasq)))
	}
	if err != nil {
		f.layer.leave()
		return err
	}
	f.deps.Log.Info("Wrote subnet file", "path", f.cfg.SubnetFile, "subnet", pods.String(), "interface", f.layer.at.under.Attrs().Name, "address", f.layer.at.local.String())
	return nil
}

// syncNodes follows nodes' annotations.
func (f *Flannel) syncNodes(ctx context.Context) error {
	self, ok := f.deps.Nodes.Get("", f.cfg.NodeName)
	if !ok {
		return fmt.Errorf("failed to acquire lease: node %q not found", f.cfg.NodeName)
	}
	pods, err := netip.ParsePrefix(self.Spec.PodCIDR)
	if err != nil {
		return fmt.Errorf("failed to acquire lease: node %q pod cidr not assigned", f.cfg.NodeName)
	}
	if !f.conf.Network.Contains(pods.Addr()) || pods.Bits() < f.conf.Network.Bits() {
		return fmt.Errorf("failed to acquire lease: subnet %q specified in the flannel net config doesn't contain %q PodCIDR of the %q node", f.conf.Network, pods, f.cfg.NodeName)
	}
	if err := f.lay(pods); err != nil {
		return err
	}
	if err := f.layer.sync(f.notes.Peers(f.deps.Nodes.List(""), f.cfg.NodeName, f.conf.Backend, false)); err != nil {
		return err
	}
	public := f.notes.overwrite(self, f.cfg.Links.public(f.layer.at.local))
	var conditions []corev1.NodeCondition
	if c := available(); f.cfg.SetNetworkUnavailable && lacks(self, c) {
		conditions = append(conditions, c)
	}
	return patchStatus(ctx, f.deps.Client, f.cfg.NodeName, missing(self, f.notes.write(leaseOf(f.conf.Backend, public, f.layer.at.local))), conditions...)
}

// syncEtcd follows leases in etcd, and holds this node's.
func (f *Flannel) syncEtcd(ctx context.Context) error {
	f.mu.Lock()
	told, pairs := f.told, f.pairs
	f.mu.Unlock()
	if !told {
		return nil // to know nobody yet is no reason to forget those of a life before
	}
	_, local, err := f.find()
	if err != nil {
		return err
	}
	all, refused := readHoldings(pairs)
	_, seen := all[f.etcd.pods]
	pods, err := f.etcd.hold(ctx, leaseOf(f.conf.Backend, f.cfg.Links.public(local), local), lastSubnet(f.cfg.SubnetFile), seen)
	if err != nil {
		return err
	}
	if err := f.lay(pods); err != nil {
		return err
	}
	return f.layer.sync(all.peers(pods, f.conf.Backend, refused), refused)
}

package node

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/network"
	"github.com/sampan-dev/sampan/proxy"
	"github.com/sampan-dev/sampan/runtime"
	"github.com/sampan-dev/sampan/runtime/image"
)

// Deps are what a node needs from its surroundings. Mirrors must be run by the
// caller; kubelet and proxy share them with whoever else is in the process.
type Deps struct {
	Client  client.Interface
	Mirrors *client.Mirrors
	Log     *slog.Logger
	Metrics *prometheus.Registry
	// Servers, if set, is told which API servers there are.
	Servers func(list []string)
}

// Node is one node's parts.
type Node struct {
	cfg     Config
	deps    Deps
	runtime *runtime.Runtime
	network *network.Network
	proxy   *proxy.Proxy
}

// New checks cfg and starts nothing.
func New(cfg Config, deps Deps) (*Node, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Foreign {
		cfg.Runtime.CNIBinDir = foreignPlugins
	}
	n := &Node{cfg: cfg, deps: deps}
	var err error
	if cfg.Endpoint == "" {
		if n.runtime, err = runtime.New(cfg.Runtime, runtime.Deps{Log: deps.Log}); err != nil {
			return nil, err
		}
	}
	nodes := client.MirrorOf[corev1.Node](deps.Mirrors, client.MirrorOptions{})
	if n.network, err = network.New(cfg.Network, network.Deps{
		Client: deps.Client, Nodes: nodes, Metrics: deps.Metrics, Log: deps.Log,
		Events: client.Recorder(deps.Client, "flanneld", cfg.Network.NodeName),
	}); err != nil {
		return nil, err
	}
	if cfg.Foreign {
		return n, nil
	}
	var slices client.Watchable[discoveryv1.EndpointSlice] = client.MirrorOf[discoveryv1.EndpointSlice](deps.Mirrors, client.MirrorOptions{})
	if deps.Servers != nil {
		followServers(slices, deps.Servers)
	}
	if cfg.Balancer.IsValid() {
		slices = throughBalancer{slices, cfg.Balancer}
	}
	n.proxy, err = proxy.New(cfg.Proxy, proxy.Deps{
		Services: client.MirrorOf[corev1.Service](deps.Mirrors, client.MirrorOptions{}),
		Slices:   slices,
		Metrics:  deps.Metrics, Log: deps.Log,
	})
	return n, err
}

// Run keeps the node going until ctx ends. Containers outlive it.
func (n *Node) Run(ctx context.Context) error {
	g := run.New(ctx)
	endpoint := n.cfg.Endpoint
	if n.runtime != nil {
		endpoint = n.runtime.Address()
		g.Go("runtime", n.runtime.Run)
	}
	if n.cfg.Registry != "" {
		if err := n.mirrors(); err != nil {
			return err
		}
		g.Go("registry", func(ctx context.Context) error { return image.Serve(ctx, n.cfg.Registry, n.cfg.RegistryDir) })
	}
	g.Go("network", n.network.Run)
	if n.proxy != nil {
		g.Go("proxy", n.proxy.Run)
	} else if err := plugins(foreignPlugins); err != nil {
		return err
	}
	g.Go("kubelet", func(ctx context.Context) error { return n.kubelet(ctx, endpoint) })
	return g.Wait()
}

// kubelet runs the agent once the runtime answers. Images still arrive then.
func (n *Node) kubelet(ctx context.Context, endpoint string) error {
	g := run.New(ctx)
	arriving := newArrivals()
	if n.runtime != nil {
		if err := n.runtime.Ready(ctx); err != nil {
			return err
		}
		supply, err := n.supply(ctx, endpoint, arriving)
		if err != nil {
			return err
		}
		g.Go("images", supply)
	} else {
		arriving.end()
	}
	r, images, err := cri.Connect(ctx, endpoint)
	if err != nil {
		return err
	}
	events := client.Recorder(n.deps.Client, "kubelet", n.cfg.Kubelet.NodeName)
	k, err := kubelet.New(n.cfg.Kubelet, kubelet.Deps{
		Client: n.deps.Client, Mirrors: n.deps.Mirrors, Events: events,
		Runtime: r, Images: patient{images, arriving}, Log: n.deps.Log, Metrics: n.deps.Metrics,
	})
	if err != nil {
		return err
	}
	g.Go("kubelet", k.Run)
	return g.Wait()
}

// mirrors makes the runtime ask the node's own registry before any other, so
// that images kept here are found even where a pod insists on pulling.
func (n *Node) mirrors() error {
	dir := n.cfg.Runtime.RegistryConfigDir
	for _, host := range []string{"_default", "docker.io", "registry.k8s.io"} {
		if err := image.WriteMirrors(dir, host, "http://"+n.cfg.Registry); err != nil {
			return fmt.Errorf("registry mirrors: %w", err)
		}
	}
	return nil
}

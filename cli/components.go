package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/kit/httpx"
	"github.com/sampan-dev/sampan/kit/logx"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/proxy"
	"github.com/sampan-dev/sampan/scheduler"
)

// component is what every component run alone has in common: flags, logs,
// metrics, and one exit.
type component struct {
	name      string
	flags     *pflag.FlagSet
	verbosity int
	version   bool
	metrics   *prometheus.Registry
	log       *slog.Logger
}

func newComponent(name, about string) *component {
	c := &component{name: name, flags: pflag.NewFlagSet(name, pflag.ContinueOnError), metrics: prometheus.NewRegistry()}
	c.flags.SortFlags = true
	c.flags.IntVarP(&c.verbosity, "v", "v", 0, "number for the log level verbosity")
	c.flags.BoolVar(&c.version, "version", false, "print version information and quit")
	c.flags.Usage = func() {
		fmt.Printf("%s\n\nUsage:\n  %s [flags]\n\nFlags:\n%s", about, name, c.flags.FlagUsages())
	}
	return c
}

// run parses the flags and does the component's work until ctx ends.
func (c *component) run(ctx context.Context, args []string, work func(ctx context.Context) error) int {
	switch err := c.flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\nsee %s --help\n", c.name, err, c.name)
		return 2
	case c.flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "%s: unknown command %q\n", c.name, c.flags.Arg(0))
		return 2
	}
	return c.exit(ctx, work)
}

func (c *component) exit(ctx context.Context, work func(ctx context.Context) error) int {
	if c.version {
		fmt.Printf("Kubernetes %s\n", api.Version().GitVersion)
		return 0
	}
	c.log = logx.Setup(os.Stderr, logx.Options{Level: logx.ForVerbosity(c.verbosity), Component: c.name})
	if err := work(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, err)
		return 1
	}
	return 0
}

// healthz serves /healthz and /metrics on an address, where the component has one.
func (c *component) healthz(g *run.Group, addr string) {
	if addr != "" {
		g.Go("healthz", func(ctx context.Context) error { return httpx.Health(ctx, addr, c.metrics) })
	}
}

// Kubelet is the kubelet program.
func Kubelet(ctx context.Context, args []string) int {
	c := newComponent("kubelet", "")
	host, _ := os.Hostname()
	cfg, o, err := kubelet.Flags(args, host)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		return 2
	}
	c.verbosity = o.Verbosity
	return c.exit(ctx, func(ctx context.Context) error {
		for _, w := range o.Warnings {
			c.log.Warn(w)
		}
		kc, err := client.FromKubeconfig(o.Kubeconfig, "")
		if err != nil {
			return err
		}
		r, images, err := cri.Connect(ctx, o.Component.ContainerRuntimeEndpoint)
		if err != nil {
			return err
		}
		mirrors := client.NewMirrors(kc)
		k, err := kubelet.New(cfg, kubelet.Deps{Client: kc, Mirrors: mirrors, Runtime: r, Images: images,
			Events: client.Recorder(kc, "kubelet", cfg.NodeName), Log: c.log, Metrics: c.metrics})
		if err != nil {
			return err
		}
		g := run.New(ctx)
		g.Go("mirrors", mirrors.Run)
		g.Go("kubelet", k.Run)
		return g.Wait()
	})
}

// Proxy is the kube-proxy program.
func Proxy(ctx context.Context, args []string) int {
	c := newComponent("kube-proxy", "kube-proxy sends connections to services to their endpoints, by a few nftables maps.")
	host, _ := os.Hostname()
	cfg := proxy.Config{NodeName: host}
	var kubeconfig, master, mode, health string
	var cleanup bool
	c.flags.StringVar(&kubeconfig, "kubeconfig", "", "path to kubeconfig file with authorization information")
	c.flags.StringVar(&master, "master", "", "the address of the Kubernetes API server (overrides any value in kubeconfig)")
	c.flags.StringVar(&cfg.NodeName, "hostname-override", host, "this node's name")
	c.flags.TextVar(&cfg.ClusterCIDR, "cluster-cidr", netip.Prefix{}, "the CIDR range of the pods in the cluster")
	c.flags.StringVar(&mode, "proxy-mode", "nftables", "nftables; iptables and ipvs are accepted and mean nftables")
	c.flags.StringVar(&health, "healthz-bind-address", "127.0.0.1:10256", "where /healthz and /metrics are served; empty for nowhere")
	c.flags.BoolVar(&cleanup, "cleanup", false, "remove the rules that kube-proxy made, and exit")
	return c.run(ctx, args, func(ctx context.Context) error {
		if cleanup {
			return proxy.Cleanup()
		}
		if mode != "nftables" {
			c.log.Warn("this proxy has one mode; rules are made for nftables", "asked", mode)
		}
		kc, err := client.FromKubeconfigAt(kubeconfig, master)
		if err != nil {
			return err
		}
		mirrors := client.NewMirrors(kc)
		p, err := proxy.New(cfg, proxy.Deps{
			Services: client.MirrorOf[corev1.Service](mirrors, client.MirrorOptions{}),
			Slices:   client.MirrorOf[discoveryv1.EndpointSlice](mirrors, client.MirrorOptions{}),
			Metrics:  c.metrics, Log: c.log,
		})
		if err != nil {
			return err
		}
		g := run.New(ctx)
		c.healthz(g, health)
		g.Go("mirrors", mirrors.Run)
		g.Go("proxy", p.Run)
		return g.Wait()
	})
}

// Scheduler is the kube-scheduler program.
func Scheduler(ctx context.Context, args []string) int {
	c := newComponent("kube-scheduler", "kube-scheduler finds a node for every pod that has none.")
	cfg := scheduler.Config{}
	parsed := cfg.Flags(c.flags)
	master := c.flags.String("master", "", "the address of the Kubernetes API server (overrides any value in kubeconfig)")
	return c.run(ctx, args, func(ctx context.Context) error {
		parsed()
		if err := cfg.Check(); err != nil {
			return err
		}
		a, err := c.actors(cfg.Kubeconfig, *master)
		if err != nil {
			return err
		}
		cfg.Election.Identity = a.Host
		return c.serve(ctx, cfg.BindAddress, cfg.SecurePort, func(ctx context.Context) error { return a.RunScheduler(ctx, cfg) })
	})
}

// ControllerManager is the kube-controller-manager program.
func ControllerManager(ctx context.Context, args []string) int {
	c := newComponent("kube-controller-manager", "kube-controller-manager runs the control loops.")
	cfg := controller.Config{}
	parsed := cfg.Flags(c.flags)
	master := c.flags.String("master", "", "the address of the Kubernetes API server (overrides any value in kubeconfig)")
	return c.run(ctx, args, func(ctx context.Context) error {
		parsed()
		if err := cfg.Check(); err != nil {
			return err
		}
		if err := cfg.CheckNames(controlplane.LoopNames()); err != nil {
			return err
		}
		secrets, err := controlplane.LoadSecrets(cfg)
		if err != nil {
			return err
		}
		a, err := c.actors(cfg.Kubeconfig, *master)
		if err != nil {
			return err
		}
		cfg.Election.Identity = a.Host
		return c.serve(ctx, cfg.BindAddress, cfg.SecurePort, func(ctx context.Context) error { return a.RunControllers(ctx, cfg, secrets) })
	})
}

// actors connects as the kubeconfig says; every actor has the file's identity.
func (c *component) actors(kubeconfig, master string) (*controlplane.Actors, error) {
	kc, err := client.FromKubeconfigAt(kubeconfig, master)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	return &controlplane.Actors{As: func(string) client.Interface { return kc }, Log: c.log, Metrics: c.metrics, Host: host}, nil
}

// serve runs work beside the component's health endpoint, an HTTPS one with a
// certificate of its own, as upstream's.
func (c *component) serve(ctx context.Context, bind string, port int, work func(context.Context) error) error {
	g := run.New(ctx)
	if port > 0 {
		g.Go("healthz", func(ctx context.Context) error {
			return httpx.SecureHealth(ctx, net.JoinHostPort(bind, strconv.Itoa(port)), c.name, c.metrics)
		})
	}
	g.Go(c.name, work)
	return g.Wait()
}

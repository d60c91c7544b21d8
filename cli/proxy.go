package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/httpx"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/proxy"
)

// proxyOptions are kube-proxy's flags beyond the proxy's own configuration.
type proxyOptions struct {
	config, kubeconfig, master, mode string
	healthz, metrics                 string
	healthzPort, metricsPort         int
	cleanup                          bool
}

func (o *proxyOptions) flags(c *component, cfg *proxy.Config) {
	host, _ := os.Hostname()
	fs := c.in(genericFlags)
	fs.StringVar(&o.config, "config", "", "The path to the configuration file. What it says wins over flags.")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "Path to kubeconfig file with authorization information (the master location can be overridden by the master flag).")
	fs.StringVar(&o.master, "master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
	fs.StringVar(&cfg.NodeName, "hostname-override", strings.ToLower(host), "If non-empty, will be used as the name of the Node that kube-proxy is running on.")
	fs.TextVar(&cfg.ClusterCIDR, "cluster-cidr", netip.MustParsePrefix("0.0.0.0/0"), "The CIDR range of the pods in the cluster. Traffic sent to Service cluster IPs from outside this range will be masqueraded.")
	fs.StringVar(&o.mode, "proxy-mode", "nftables", "Which proxy mode to use. There is one, nftables; iptables and ipvs are accepted and mean it.")
	fs.BoolVar(&o.cleanup, "cleanup", false, "If true cleanup the rules that kube-proxy made and exit.")
	serve := c.in(servingFlags)
	serve.StringVar(&o.healthz, "healthz-bind-address", "0.0.0.0:10256", `The IP address and port for the health check server to serve on. Set empty to disable.`)
	serve.StringVar(&o.metrics, "metrics-bind-address", "127.0.0.1:10249", `The IP address and port for the metrics server to serve on. Set empty to disable.`)
	serve.IntVar(&o.healthzPort, "healthz-port", 10256, "The port to bind the health check server. Use 0 to disable.")
	serve.IntVar(&o.metricsPort, "metrics-port", 10249, "The port to bind the metrics server. Use 0 to disable.")
	c.retired = append(c.retired,
		retired{why: "rules are a few nftables maps, changed by difference as soon as something changes", names: strings.Fields(`iptables-sync-period iptables-min-sync-period iptables-masquerade-bit
			ipvs-sync-period ipvs-min-sync-period ipvs-scheduler ipvs-exclude-cidrs ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout config-sync-period
			nodeport-addresses proxy-port-range udp-timeout oom-score-adj resource-container bind-address detect-local-mode pod-bridge-interface pod-interface-name-prefix`),
			bools: strings.Fields("masquerade-all ipvs-strict-arp cleanup-ipvs iptables-localhost-nodeports init-only bind-address-hard-fail")},
		retired{why: "the kernel's own limits of connection tracking stay", names: strings.Fields("conntrack-max conntrack-max-per-core conntrack-min conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established conntrack-udp-timeout conntrack-udp-timeout-stream"), bools: []string{"conntrack-tcp-be-liberal"}},
		retired{why: "the client is not limited", names: []string{"kube-api-qps", "kube-api-burst", "kube-api-content-type"}},
		retired{why: "see --kubeconfig", names: []string{"write-config-to"}, bools: []string{"profiling"}},
	)
}

// addresses settles where to listen: a port alone may be given.
func (o *proxyOptions) addresses() error {
	for _, a := range []struct {
		flag    string
		address *string
		port    int
		usual   int
	}{{"--healthz-bind-address", &o.healthz, o.healthzPort, 10256}, {"--metrics-bind-address", &o.metrics, o.metricsPort, 10249}} {
		if *a.address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(*a.address)
		if err != nil { // an address alone, as old ones are
			host, port = strings.Trim(*a.address, "[]"), strconv.Itoa(a.port)
		}
		if a.port != a.usual {
			port = strconv.Itoa(a.port)
		}
		if net.ParseIP(host) == nil {
			return errors.New(a.flag + " " + *a.address + ": want ADDRESS:PORT")
		}
		if *a.address = net.JoinHostPort(host, port); port == "0" {
			*a.address = ""
		}
	}
	return nil
}

// proxyProgram is kube-proxy with its flags.
type proxyProgram struct {
	*component
	o   proxyOptions
	cfg proxy.Config
}

func newProxy() *proxyProgram {
	p := &proxyProgram{component: newComponent("kube-proxy", "kube-proxy sends connections to services to their endpoints, by a few nftables maps.")}
	p.o.flags(p.component, &p.cfg)
	return p
}

// Proxy is the kube-proxy program.
func Proxy(ctx context.Context, args []string) int {
	program := newProxy()
	c, o := program.component, &program.o
	return c.run(ctx, args, func(ctx context.Context) error {
		if o.cleanup {
			return proxy.Cleanup()
		}
		cfg := program.cfg
		if err := errors.Join(proxyFile(o.config, o, &cfg), o.addresses()); err != nil {
			return err
		}
		if o.mode != "nftables" && o.mode != "" {
			c.log.Warn("this proxy has one mode; rules are made for nftables", "asked", o.mode)
		}
		kc, err := client.FromKubeconfigAt(o.kubeconfig, o.master)
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
		o.serve(g, c)
		g.Go("mirrors", mirrors.Run)
		g.Go("proxy", p.Run)
		return g.Wait()
	})
}

// serve serves health for load balancers and, on loopback, the rest.
func (o *proxyOptions) serve(g *run.Group, c *component) {
	if o.healthz != "" {
		g.Go("healthz", func(ctx context.Context) error {
			return httpx.ListenAndServe(ctx, o.healthz, httpx.Pages{}.Handler())
		})
	}
	if o.metrics == "" {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/", httpx.Pages{Metrics: c.metrics, Config: map[string]any{"kubeproxy.config.k8s.io": c.effective}}.Handler())
	mux.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("nftables")) })
	g.Go("metrics", func(ctx context.Context) error { return httpx.ListenAndServe(ctx, o.metrics, mux) })
}

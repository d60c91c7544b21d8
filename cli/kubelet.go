package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/bootstrap"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet"
	"github.com/sampan-dev/sampan/kubelet/config"
	"github.com/sampan-dev/sampan/kubelet/cri"
)

// kubeletUsage says what the kubelet's flags do, under their headings. The flags
// themselves are kubelet/config's; a test compares.
var kubeletUsage = []struct{ title, text string }{
	{genericFlags, `
config string | The Kubelet will load its initial configuration from this file. Flags override it.
config-dir string | Path to a directory of drop-in files (*.conf), laid over --config in the order of their names.
kubeconfig string | Path to a kubeconfig file, specifying how to connect to the API server.
bootstrap-kubeconfig string | Path to a kubeconfig file that will be used to get client certificate for kubelet, if the file of --kubeconfig does not exist.
hostname-override string | If non-empty, will use this string as identification instead of the actual hostname.
node-ip strings | IP address (or comma-separated dual-stack IP addresses) of the node.
root-dir string | Directory path for managing kubelet files (volume mounts, etc). (default "/var/lib/kubelet")
cert-dir string | The directory where the TLS certs are located. (default "/var/lib/kubelet/pki")
pod-manifest-path string | Path to the directory containing static pod files to run, or to a single file.
provider-id string | Unique identifier for identifying the node in a machine database.`},
	{"Node", `
register-node | Register the node with the API server. (default true)
register-with-taints strings | Register the node with the given list of taints (comma separated "<key>=<value>:<effect>").
node-labels strings | Labels to add when registering the node in the cluster, as key=value pairs.
node-status-update-frequency duration | Specifies how often kubelet posts node status to master. (default 10s)
max-pods int32 | Number of Pods that can run on this Kubelet. (default 110)
system-reserved strings | A set of ResourceName=ResourceQuantity pairs reserved for non-kubernetes components.
kube-reserved strings | A set of ResourceName=ResourceQuantity pairs reserved for kubernetes system components.
pod-max-pids int64 | Set the maximum number of processes per pod. If -1, the kubelet defaults to the node allocatable PID capacity. (default -1)
allowed-unsafe-sysctls strings | Comma-separated list of unsafe sysctls or unsafe sysctl patterns (ending in *) that pods may set.
eviction-soft strings | A set of eviction thresholds that if met over a corresponding grace period would trigger a pod eviction.
eviction-soft-grace-period strings | A set of eviction grace periods that correspond to how long a soft eviction threshold must hold.
eviction-max-pod-grace-period int32 | Maximum allowed grace period (in seconds) to use when terminating pods in response to a soft eviction threshold being met.
eviction-minimum-reclaim strings | A set of minimum reclaims that describes the minimum amount of a resource the kubelet will reclaim when performing a pod eviction.
eviction-pressure-transition-period duration | Duration for which the kubelet has to wait before transitioning out of an eviction pressure condition. (default 5m0s)
eviction-hard strings | A set of eviction thresholds (e.g. memory.available<1Gi) that if met would trigger a pod eviction.`},
	{"Container runtime", `
container-runtime-endpoint string | The endpoint of container runtime service. (default "unix:///run/containerd/containerd.sock")
image-service-endpoint string | The endpoint of container image service; that of the runtime if empty.
cgroup-driver string | Driver that the kubelet uses to manipulate cgroups on the host: cgroupfs or systemd. (default "cgroupfs")
cgroup-root string | Optional root cgroup to use for pods.
cgroups-per-qos | Enable creation of QoS cgroup hierarchy. (default true)
cpu-cfs-quota | Enable CPU CFS quota enforcement for containers that specify CPU limits. (default true)
seccomp-default | Use RuntimeDefault as the default seccomp profile for all workloads.
serialize-image-pulls | Pull images one at a time. (default true)
image-gc-high-threshold int32 | The percent of disk usage after which image garbage collection is always run. (default 85)
image-gc-low-threshold int32 | The percent of disk usage before which image garbage collection is never run. (default 80)
minimum-image-ttl-duration duration | Minimum age for an unused image before it is garbage collected. (default 2m0s)
container-log-max-files int32 | Set the maximum number of container log files that can be present for a container. (default 5)
container-log-max-size string | Set the maximum size of container log file before it is rotated. (default "10Mi")`},
	{"DNS", `
cluster-dns strings | Comma-separated list of DNS server IP address, used by Pods with "dnsPolicy=ClusterFirst".
cluster-domain string | Domain for this cluster, searched by containers beside the host's search domains.
resolv-conf string | Resolver configuration file used as the basis for the container DNS resolution configuration. (default "/etc/resolv.conf")`},
	{servingFlags, `
address string | The IP address for the Kubelet to serve on. (default "0.0.0.0")
port int32 | The port for the Kubelet to serve on. (default 10250)
enable-server | Enable the Kubelet's server. (default true)
read-only-port int32 | The read-only port for the Kubelet to serve on with no authentication/authorization (set to 0 to disable).
rotate-server-certificates | Auto-request and rotate the kubelet serving certificates by requesting new ones from the API server.
healthz-bind-address string | The IP address for the healthz server to serve on. (default "127.0.0.1")
healthz-port int32 | The port of the localhost healthz endpoint, 0 to disable. (default 10248)
tls-cert-file string | File containing x509 Certificate used for serving HTTPS.
tls-private-key-file string | File containing x509 private key matching --tls-cert-file.
rotate-certificates | Auto rotate the kubelet client certificates by requesting new ones from the API server.`},
	{authnFlags, `
client-ca-file string | Any request presenting a client certificate signed by one of the authorities in this file is authenticated with its CommonName.
anonymous-auth | Enables anonymous requests to the Kubelet server.
authentication-token-webhook | Use the TokenReview API to determine authentication for bearer tokens. (default true)
authorization-mode string | Authorization mode for Kubelet server: AlwaysAllow or Webhook. (default "Webhook")`},
	{globalFlags, `
v int | number for the log level verbosity
version | print version information and quit
help | help for kubelet`},
}

// kubeletFlags are the lines of kubeletUsage: name and what it does.
func kubeletFlags(each func(title, name, kind, usage string)) {
	for _, s := range kubeletUsage {
		for line := range strings.Lines(strings.TrimSpace(s.text)) {
			head, usage, _ := strings.Cut(strings.TrimSpace(line), " | ")
			name, kind, _ := strings.Cut(head, " ")
			each(s.title, name, kind, usage)
		}
	}
}

// Kubelet is the kubelet program.
func Kubelet(ctx context.Context, args []string) int {
	c := newComponent("kubelet", "kubelet runs the pods that are bound to this node.")
	kubeletFlags(func(title, name, kind, usage string) {
		c.in(title).AddFlag(&pflag.Flag{Name: name, Usage: usage, Value: shown(kind), NoOptDefVal: map[string]string{"": "true"}[kind]})
	})
	args, server := kubeletArgs(args, c)
	for _, a := range args {
		switch a {
		case "-h", "--help":
			c.aliases = map[string]string{"experimental-bootstrap-kubeconfig": "", "api-servers": "", "enable-debugging-handles": ""}
			c.help(os.Stdout, c.about, terminalWidth())
			return 0
		case "--version", "--version=true":
			c.version = true
			return c.exit(ctx, nil)
		}
	}
	host, _ := os.Hostname()
	cfg, o, err := kubelet.Flags(c.trusting(args, server), host)
	if err != nil {
		return c.misused(kubeletUnknown(err))
	}
	c.verbosity, c.warnings = o.Verbosity, append(c.warnings, o.Warnings...)
	return c.exit(ctx, func(ctx context.Context) error {
		if len(cfg.NodeIPs) == 0 {
			if a := outboundIP(c.log); a.IsValid() {
				cfg.NodeIPs = []string{a.String()}
			}
		}
		return c.kubelet(ctx, cfg, o, server)
	})
}

// kubeletUnknown adds to the error about an unknown flag which one was meant.
func kubeletUnknown(err error) error {
	if err == nil {
		return nil
	}
	name, ok := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	var names []string
	kubeletFlags(func(_, n, _, _ string) { names = append(names, n) })
	return unknownFlag(name, names)
}

// trusting adds, for a kubelet that nothing is said to of who may ask it, what
// upstream's does then: it answers everybody. Here that is so only if its API
// server is one that other machines reach over plain HTTP, and so does the same.
func (c *component) trusting(args []string, server string) []string {
	for _, name := range []string{"config", "config-dir", "anonymous-auth", "authorization-mode", "client-ca-file", "authentication-token-webhook"} {
		if _, given := argument(args, name); given {
			return args
		}
	}
	if path, ok := argument(args, "kubeconfig"); ok && server == "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return args
		}
		server, _, _ = client.ClusterOf(text)
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" || loopback(u.Hostname()) || u.Hostname() == "localhost" {
		return args
	}
	c.warn("the API server is spoken to over plain HTTP, where everybody may do everything: so is this kubelet, on its port; --anonymous-auth=false or --client-ca-file close it")
	return append(slices.Clone(args), "--anonymous-auth=true", "--authorization-mode=AlwaysAllow")
}

// argument finds the value of a flag among arguments.
func argument(args []string, name string) (value string, given bool) {
	for i, a := range args {
		n, v, eq := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || strings.ReplaceAll(n, "_", "-") != name {
			continue
		}
		if !eq && i+1 < len(args) {
			v = args[i+1]
		}
		return v, true
	}
	return "", false
}

// shown is a flag's value that is only shown in help.
type shown string

func (s shown) Set(string) error { return nil }
func (s shown) String() string   { return "" }
func (s shown) Type() string     { return strings.TrimSpace(string(s)) }

// kubeletArgs turns spellings of long ago into today's; an API server given
// without a kubeconfig is returned beside them.
func kubeletArgs(args []string, c *component) (now []string, server string) {
	for i := 0; i < len(args); i++ {
		name, value, given := strings.Cut(args[i], "=")
		switch strings.ReplaceAll(strings.TrimLeft(name, "-"), "_", "-") {
		case "experimental-bootstrap-kubeconfig":
			c.warn("Flag --experimental-bootstrap-kubeconfig has been deprecated, use --bootstrap-kubeconfig")
			now = append(now, strings.Replace(args[i], name, "--bootstrap-kubeconfig", 1))
		case "api-servers", "master":
			c.warn("Flag %s has been deprecated, use --kubeconfig", name)
			if !given && i+1 < len(args) {
				i++
				value = args[i]
			}
			server, _, _ = strings.Cut(value, ",")
		case "enable-debugging-handles":
			c.warn("Flag %s has been deprecated, the kubelet's API is always served", name)
		default:
			now = append(now, args[i])
		}
	}
	return now, server
}

func (c *component) kubelet(ctx context.Context, cfg kubelet.Config, o *config.Options, server string) error {
	r, images, err := cri.Connect(ctx, o.Component.ContainerRuntimeEndpoint)
	if err != nil {
		return err
	}
	if e := o.Component.ImageServiceEndpoint; e != "" {
		if _, images, err = cri.Connect(ctx, e); err != nil {
			return err
		}
	}
	g := run.New(ctx)
	kc, err := c.connection(g, cfg.NodeName, o, server)
	if err != nil {
		return err
	}
	mirrors := client.NewMirrors(kc)
	k, err := kubelet.New(cfg, kubelet.Deps{Client: kc, Mirrors: mirrors, Runtime: r, Images: images,
		Events: client.Recorder(kc, "kubelet", cfg.NodeName), Log: c.log, Metrics: c.metrics})
	if err != nil {
		g.Stop()
		return errors.Join(err, g.Wait())
	}
	g.Go("cgroup driver", func(ctx context.Context) error {
		return kubelet.AgreeOnDriver(ctx, r, &cfg, o.CgroupDriver, c.log)
	})
	g.Go("mirrors", mirrors.Run)
	g.Go("kubelet", k.Run)
	return g.Wait()
}

// connection is the kubeconfig's. Without one, this node gets a certificate by
// the bootstrap kubeconfig's token, beside what the kubelet can do without.
func (c *component) connection(g *run.Group, node string, o *config.Options, server string) (client.Interface, error) {
	if o.BootstrapConfig != "" && o.Kubeconfig == "" {
		return nil, fmt.Errorf("--bootstrap-kubeconfig needs --kubeconfig, which says where the result goes")
	}
	if _, err := os.Stat(o.Kubeconfig); err == nil || o.BootstrapConfig == "" {
		return client.FromKubeconfigAt(o.Kubeconfig, server)
	}
	if err := os.MkdirAll(filepath.Dir(o.Kubeconfig), 0o755); err != nil {
		return nil, err
	}
	c.log.Info("asking for a client certificate", "bootstrap", o.BootstrapConfig)
	p := &pending{}
	g.Go("bootstrap", func(ctx context.Context) error {
		if err := bootstrap.NodeKubeconfig(ctx, o.BootstrapConfig, o.Kubeconfig, o.CertDir, node); err != nil {
			return err
		}
		kc, err := client.FromKubeconfigAt(o.Kubeconfig, server)
		if err != nil {
			return err
		}
		p.come(kc)
		return nil
	})
	return p, nil
}

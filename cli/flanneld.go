package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/httpx"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/network"
)

// Headings of flanneld's help.
const (
	flannelLinks = "Links"
	flannelEtcd  = "Leases in etcd"
	flannelNodes = "Leases in nodes' annotations"
)

// flannelOptions are flanneld's flags beyond the overlay's own configuration.
type flannelOptions struct {
	cfg                   network.FlannelConfig
	byNodes               bool
	kubeconfig, api, conf string
	healthzIP             string
	healthzPort, margin   int
	endpoints             string
}

func (o *flannelOptions) flags(c *component) {
	fs := c.in(genericFlags)
	fs.StringVar(&o.cfg.SubnetFile, "subnet-file", network.SubnetFile, "filename where env variables (subnet, MTU, ... ) will be written to")
	fs.BoolVar(&o.cfg.IPMasq, "ip-masq", false, "setup IP masquerade rule for traffic destined outside of overlay network")
	fs.StringVar(&o.healthzIP, "healthz-ip", "0.0.0.0", "the IP address for healthz server to listen")
	fs.IntVar(&o.healthzPort, "healthz-port", 0, "the port for healthz server to listen(0 to disable)")
	links := c.in(flannelLinks)
	links.StringSliceVar(&o.cfg.Links.Names, "iface", nil, "interface to use (IP or name) for inter-host communication. Can be specified multiple times to check each option in order. Returns the first match found.")
	links.StringSliceVar(&o.cfg.Links.Patterns, "iface-regex", nil, "regex expression to match the first interface to use (IP or name) for inter-host communication. Can be specified multiple times to check each regex in order. Regexes are checked after specific interfaces specified by the iface option have already been checked.")
	links.StringVar(&o.cfg.Links.CanReach, "iface-can-reach", "", "detect interface to use (IP or name) for inter-host communication based on which will be used for provided IP. This is exactly the interface to use of command 'ip route get <ip-address>'")
	links.StringVar(&o.cfg.Links.PublicIP, "public-ip", "", "IP accessible by other nodes for inter-host communication")
	nodes := c.in(flannelNodes)
	nodes.BoolVar(&o.byNodes, "kube-subnet-mgr", false, "contact the Kubernetes API for subnet assignment instead of etcd.")
	nodes.StringVar(&o.kubeconfig, "kubeconfig-file", "", "kubeconfig file location. Does not need to be specified if flannel is running in a pod.")
	nodes.StringVar(&o.api, "kube-api-url", "", "Kubernetes API server URL. Does not need to be specified if flannel is running in a pod.")
	nodes.StringVar(&o.cfg.Annotations, "kube-annotation-prefix", network.DefaultAnnotations, `Kubernetes annotation prefix. Can contain single slash "/", otherwise it will be appended at the end.`)
	nodes.StringVar(&o.cfg.NetConfPath, "net-config-path", "/etc/kube-flannel/net-conf.json", "path to the network configuration file")
	nodes.BoolVar(&o.cfg.SetNetworkUnavailable, "set-node-network-unavailable", true, "set NodeNetworkUnavailable after ready")
	etcd := c.in(flannelEtcd)
	etcd.StringVar(&o.endpoints, "etcd-endpoints", "http://127.0.0.1:4001,http://127.0.0.1:2379", "a comma-delimited list of etcd endpoints")
	etcd.StringVar(&o.cfg.Etcd.Prefix, "etcd-prefix", "/coreos.com/network", "etcd prefix")
	etcd.StringVar(&o.cfg.Etcd.KeyFile, "etcd-keyfile", "", "SSL key file used to secure etcd communication")
	etcd.StringVar(&o.cfg.Etcd.CertFile, "etcd-certfile", "", "SSL certification file used to secure etcd communication")
	etcd.StringVar(&o.cfg.Etcd.CAFile, "etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication")
	etcd.StringVar(&o.cfg.Etcd.Username, "etcd-username", "", "username for BasicAuth to etcd")
	etcd.StringVar(&o.cfg.Etcd.Password, "etcd-password", "", "password for BasicAuth to etcd")
	etcd.IntVar(&o.margin, "subnet-lease-renew-margin", 60, "subnet lease renewal margin, in minutes, ranging from 1 to 1439")
	c.retired = append(c.retired,
		retired{why: "rules are nftables', laid once", names: []string{"iptables-resync"}, bools: []string{"iptables-forward-rules"}},
		retired{why: "pods have IPv4 addresses here", names: []string{"public-ipv6"}},
		retired{why: "there is nothing to choose", bools: []string{"use-multi-cluster-cidr", "ip-blackhole-route"}},
		retired{why: "the configuration and the leases are read where --kube-subnet-mgr says", names: []string{"remote", "remote-keyfile", "remote-certfile", "remote-cafile", "networks", "listen"}},
	)
}

// environment gives flags that the command line leaves out the values of
// FLANNELD_FLAG, or of FLANNEL_FLAG as the packages' /etc/sysconfig/flanneld has it.
func (o *flannelOptions) environment(c *component, args []string) []string {
	var from []string
	for _, s := range c.sections {
		s.flags.VisitAll(func(f *pflag.Flag) {
			name := strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if v := cmp.Or(os.Getenv("FLANNELD_"+name), os.Getenv("FLANNEL_"+name)); v != "" {
				from = append(from, "--"+f.Name+"="+v)
			}
		})
	}
	if v := os.Getenv("FLANNEL_ETCD"); v != "" && os.Getenv("FLANNEL_ETCD_ENDPOINTS") == "" { // the packages' oldest spelling
		from = append([]string{"--etcd-endpoints=" + v}, from...)
	}
	return append(from, args...)
}

// dashes makes flags of one dash, which flanneld's are as often as not, those of two.
func dashes(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if len(a) > 2 && a[0] == '-' && a[1] != '-' && !strings.HasPrefix(a, "-v") {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// Flanneld is the flanneld program.
func Flanneld(ctx context.Context, args []string) int {
	c := newComponent("flanneld", "flanneld is the overlay between nodes: it takes a range for this node's pods and makes those of the other nodes reachable.")
	o := &flannelOptions{}
	o.flags(c)
	return c.run(ctx, o.environment(c, dashes(args)), func(ctx context.Context) error {
		o.cfg.Etcd.Endpoints = strings.FieldsFunc(o.endpoints, func(r rune) bool { return r == ',' || r == ' ' })
		if o.margin < 1 || o.margin > 1439 {
			return fmt.Errorf("invalid subnet-lease-renew-margin option, out of acceptable range: %d", o.margin)
		}
		o.cfg.RenewMargin = time.Duration(o.margin) * time.Minute
		g := run.New(ctx)
		deps := network.Deps{Log: c.log, Metrics: c.metrics}
		if o.byNodes {
			kc, err := client.FromKubeconfigAt(o.kubeconfig, o.api)
			if err != nil {
				return fmt.Errorf("failed to create SubnetManager: %w", err)
			}
			if o.cfg.NodeName, err = o.node(ctx, kc); err != nil {
				return fmt.Errorf("failed to create SubnetManager: %w", err)
			}
			mirrors := client.NewMirrors(kc)
			deps.Client, deps.Nodes = kc, client.MirrorOf[corev1.Node](mirrors, client.MirrorOptions{})
			deps.Events = client.Recorder(kc, "flanneld", o.cfg.NodeName)
			g.Go("mirrors", mirrors.Run)
		}
		f, err := network.NewFlannel(o.cfg, deps)
		if err != nil {
			return err
		}
		if o.healthzPort != 0 {
			g.Go("healthz", func(ctx context.Context) error {
				return httpx.ListenAndServe(ctx, net.JoinHostPort(o.healthzIP, strconv.Itoa(o.healthzPort)), flannelPages(c))
			})
		}
		g.Go("flannel", f.Run)
		return g.Wait()
	})
}

// flannelPages say that flanneld is well, in its words, and its metrics.
func flannelPages(c *component) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", httpx.Pages{Metrics: c.metrics}.Handler())
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "flanneld is running") })
	return mux
}

// node is the name of the node this runs on: told, or that of the pod's node.
func (o *flannelOptions) node(ctx context.Context, kc client.Interface) (string, error) {
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name, nil
	}
	name, namespace := os.Getenv("POD_NAME"), os.Getenv("POD_NAMESPACE")
	if name == "" || namespace == "" {
		return "", errors.New("env variables POD_NAME and POD_NAMESPACE must be set")
	}
	pod, err := client.Of[corev1.Pod](kc, namespace).Get(ctx, name)
	if err != nil {
		return "", fmt.Errorf("error retrieving pod spec for '%s/%s': %w", namespace, name, err)
	}
	if pod.Spec.NodeName == "" {
		return "", fmt.Errorf("node name not present in pod spec '%s/%s'", namespace, name)
	}
	return pod.Spec.NodeName, nil
}

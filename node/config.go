package node

import (
	"errors"
	"net/netip"

	"github.com/sampan-dev/sampan/kubelet"
	"github.com/sampan-dev/sampan/network"
	"github.com/sampan-dev/sampan/proxy"
	"github.com/sampan-dev/sampan/runtime"
)

// Config is the configuration of each part.
type Config struct {
	Kubelet kubelet.Config
	Runtime runtime.Config
	Network network.Config
	Proxy   proxy.Config
	// Endpoint is a CRI endpoint to use instead of the runtime built in; empty
	// starts that.
	Endpoint string
	// Images are archives, or directories of them, imported at start.
	Images []string
	// Registry is the loopback address of the node's own registry, asked before
	// any other; empty for none. RegistryDir is where it keeps images.
	Registry, RegistryDir string
	// Foreign says that the cluster itself brings the node's network and proxy, as DaemonSets.
	Foreign bool
	// Balancer is where pods reach a balancer over the API servers; not valid for none.
	Balancer netip.AddrPort
	// Binary is the running program, of which the system images are made.
	Binary string
}

// Common is what several parts must agree on.
type Common struct {
	Name                     string
	IP                       netip.Addr
	ClusterCIDR, ServiceCIDR netip.Prefix
	ClusterDNS               string
	ClusterDomain            string
	Version                  string
}

// Config returns the configuration of an ordinary node.
func (c Common) Config() Config {
	cfg := Config{Kubelet: kubelet.Default(), Runtime: runtime.Defaults()}
	cfg.Kubelet.NodeName, cfg.Kubelet.NodeIPs = c.Name, []string{c.IP.String()}
	cfg.Kubelet.ClusterDNS, cfg.Kubelet.ClusterDomain = []string{c.ClusterDNS}, c.ClusterDomain
	cfg.Kubelet.Version, cfg.Kubelet.Register = c.Version, true
	cfg.Network = network.Config{NodeName: c.Name, NodeIP: c.IP, ClusterCIDR: c.ClusterCIDR, ServiceCIDR: c.ServiceCIDR}
	cfg.Proxy = proxy.Config{NodeName: c.Name, ClusterCIDR: c.ClusterCIDR}
	return cfg
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	return errors.Join(c.Kubelet.Check(), c.Proxy.Check(), c.Runtime.Check())
}

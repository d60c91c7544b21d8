package network

import (
	"errors"
	"fmt"
	"net/netip"
)

// Backends of the overlay.
const (
	VXLAN  = "vxlan"
	HostGW = "host-gw"
)

// Config is what a node's network needs to know.
type Config struct {
	NodeName    string
	NodeIP      netip.Addr   // this node's address, by which others reach it
	ClusterCIDR netip.Prefix // all pods; traffic within it is never masqueraded
	ServiceCIDR netip.Prefix // all service addresses; routed to the bridge, so that the node itself reaches them without a default route
	Backend     string       // VXLAN or HostGW; VXLAN if empty
	VNI         int          // 1 if 0, as flannel's
	Port        int          // of VXLAN, 8472 if 0, as flannel's
	Bridge      string       // "cni0" if empty
	MTU         int          // of pods; 0 takes the node link's, less the overlay's 50
	CNIConfDir  string       // "/etc/cni/net.d" if empty
	CNIStateDir string       // "/var/lib/cni/sampan" if empty
}

func (c Config) withDefaults() Config {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.Backend, VXLAN)
	set(&c.Bridge, "cni0")
	set(&c.CNIConfDir, "/etc/cni/net.d")
	set(&c.CNIStateDir, "/var/lib/cni/sampan")
	if c.VNI == 0 {
		c.VNI = 1
	}
	if c.Port == 0 {
		c.Port = 8472
	}
	return c
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("network: node name: Required value"))
	}
	if !c.NodeIP.Is4() {
		errs = append(errs, fmt.Errorf("network: node address %v: not IPv4", c.NodeIP))
	}
	if !c.ClusterCIDR.IsValid() || !c.ClusterCIDR.Addr().Is4() {
		errs = append(errs, fmt.Errorf("network: cluster CIDR %v: not an IPv4 range", c.ClusterCIDR))
	}
	if c.Backend != VXLAN && c.Backend != HostGW {
		errs = append(errs, fmt.Errorf("network: backend %q: supported values: %q, %q", c.Backend, VXLAN, HostGW))
	}
	return errors.Join(errs...)
}

package network

import (
	"errors"
	"fmt"
	"net/netip"
)

// None as a backend leaves the network to somebody else's: nothing is set up,
// and no CNI configuration of ours is there.
const None = "none"

// Config is what a node's network needs to know.
type Config struct {
	NodeName      string
	NodeIP        netip.Addr   // this node's address, by which others reach it
	ClusterCIDR   netip.Prefix // all pods; traffic within it is never masqueraded
	ServiceCIDR   netip.Prefix // all service addresses; routed to the bridge, so that the node itself reaches them without a default route
	Backend       string       // VXLAN, HostGW, UDP or None; VXLAN if empty
	VNI           int          // 1 if 0, as flannel's
	Port          int          // 8472 for VXLAN, 8285 for UDP if 0, as flannel's
	DirectRouting bool         // VXLAN: nodes on the same link are reached by routes alone
	Bridge        string       // "cni0" if empty
	MTU           int          // of pods; 0 takes the node link's, less what the overlay adds
	CNIConfDir    string       // "/etc/cni/net.d" if empty
	CNIStateDir   string       // "/var/lib/cni/sampan" if empty
	SubnetFile    string       // "/run/flannel/subnet.env" if empty: the node's range, for plugins of flannel
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
	set(&c.SubnetFile, SubnetFile)
	return c
}

// backend is the part of the configuration that is flannel's.
func (c Config) backend() Backend {
	return Backend{Type: c.Backend, VNI: c.VNI, Port: c.Port, MTU: c.MTU, DirectRouting: c.DirectRouting}.withDefaults()
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
	switch c.Backend {
	case None:
	case VXLAN, HostGW, UDP:
		errs = append(errs, c.backend().check())
	default:
		errs = append(errs, fmt.Errorf("network: backend %q: supported values: %q, %q, %q, %q", c.Backend, VXLAN, HostGW, UDP, None))
	}
	return errors.Join(errs...)
}

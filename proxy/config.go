package proxy

import (
	"errors"
	"fmt"
	"net/netip"
)

// Config is what a node's proxy needs to know.
type Config struct {
	NodeName string
	// ClusterCIDR is where pods live. Connections to cluster addresses from
	// elsewhere are masqueraded, so that answers find back.
	ClusterCIDR netip.Prefix
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("proxy: node name: Required value"))
	}
	if !c.ClusterCIDR.IsValid() || !c.ClusterCIDR.Addr().Is4() {
		errs = append(errs, fmt.Errorf("proxy: cluster CIDR %v: not an IPv4 range", c.ClusterCIDR))
	}
	return errors.Join(errs...)
}

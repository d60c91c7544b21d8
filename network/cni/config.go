package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
)

// PluginName is the executable's name in the CNI binary directory.
const PluginName = "sampan-cni"

// Config is the plugin's part of a CNI network configuration list.
type Config struct {
	types.NetConf
	Bridge   string `json:"bridge"`             // the bridge's name; "cni0" if empty
	Subnet   string `json:"subnet"`             // the node's pod range; its first address is the bridge's
	MTU      int    `json:"mtu,omitempty"`      // of container interfaces; 0 leaves the kernel's
	StateDir string `json:"stateDir,omitempty"` // "/var/lib/cni/sampan" if empty

	RuntimeConfig struct {
		PortMappings []PortMapping `json:"portMappings,omitempty"`
	} `json:"runtimeConfig,omitempty"`

	subnet netip.Prefix
}

// PortMapping is one host port, by CNI's capability convention.
type PortMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// parse reads a configuration and fills in what is left out.
func parse(data []byte) (*Config, error) {
	c := &Config{Bridge: "cni0", StateDir: "/var/lib/cni/sampan"}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	prefix, err := netip.ParsePrefix(c.Subnet)
	if err != nil || !prefix.Addr().Is4() {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("subnet %q is not an IPv4 range", c.Subnet), "")
	}
	if prefix.Bits() > 30 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("subnet %q has no room for containers", c.Subnet), "")
	}
	c.subnet = prefix.Masked()
	return c, nil
}

// cable is how an attachment is connected.
func (c *Config) cable(a attachment) cable {
	return cable{MTU: c.MTU, Hairpin: true, Address: netip.PrefixFrom(a.Address, c.subnet.Bits()), Gateway: c.gateway().Addr(), Default: true}
}

// gateway is the bridge's address: the range's first.
func (c *Config) gateway() netip.Prefix {
	return netip.PrefixFrom(c.subnet.Addr().Next(), c.subnet.Bits())
}

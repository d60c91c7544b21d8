package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
)

// portmapDir is where the plugin portmap keeps what it mapped: DEL of older
// configurations is not told the address.
const portmapDir = "/var/lib/cni/portmap"

// portmapConf is upstream's configuration of the plugin portmap. What chooses
// between ways of masquerading has no effect: only containers that call their
// own host port, and callers on loopback, need it.
type portmapConf struct {
	types.NetConf
	StateDir      string `json:"stateDir"`
	RuntimeConfig struct {
		PortMaps []PortMapping `json:"portMappings,omitempty"`
	} `json:"runtimeConfig,omitempty"`
}

func parsePortmap(data []byte) (*portmapConf, *current.Result, error) {
	c := &portmapConf{StateDir: portmapDir}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	for _, p := range c.RuntimeConfig.PortMaps {
		if p.ContainerPort == 0 {
			return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "Invalid container port number: 0", "")
		}
	}
	if c.RawPrevResult == nil {
		return c, nil, nil
	}
	if err := version.ParsePrevResult(&c.NetConf); err != nil {
		return nil, nil, fmt.Errorf("could not parse prevResult: %w", err)
	}
	res, err := current.NewResultFromResult(c.PrevResult)
	return c, res, err
}

// published are the mappings that have a host port.
func (c *portmapConf) published() (out []PortMapping) {
	for _, p := range c.RuntimeConfig.PortMaps {
		if p.HostPort != 0 {
			out = append(out, p)
		}
	}
	return out
}

// containerAddress is the first IPv4 address that an interface of the container has.
func containerAddress(res *current.Result) (netip.Addr, bool) {
	for _, ip := range res.IPs {
		if ip.Interface != nil && *ip.Interface >= 0 && *ip.Interface < len(res.Interfaces) && res.Interfaces[*ip.Interface].Sandbox == "" {
			continue
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP.To4()); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func portmapAdd(args *skel.CmdArgs) error {
	c, prev, err := parsePortmap(args.StdinData)
	if err != nil {
		return err
	}
	if prev == nil {
		return errors.New("must be called as chained plugin")
	}
	ports := c.published()
	if ip, ok := containerAddress(prev); ok && len(ports) > 0 {
		if err := c.publish(args, attachment{Container: args.ContainerID, Interface: args.IfName, Address: ip, Ports: ports}); err != nil {
			return err
		}
	}
	return types.PrintResult(prev, c.CNIVersion)
}

// publish writes the mapping down, then makes it.
func (c *portmapConf) publish(args *skel.CmdArgs, a attachment) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.StateDir, fileOf(args.ContainerID, args.IfName)), text); err != nil {
		return err
	}
	// Callers on loopback leave by the link that the container is behind.
	if routes, err := netlink.RouteGet(a.Address.AsSlice()); err == nil && len(routes) > 0 {
		if link, err := netlink.LinkByIndex(routes[0].LinkIndex); err == nil {
			_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+link.Attrs().Name+"/route_localnet", []byte("1"), 0o644)
		}
	}
	h, err := openHostPorts()
	if err != nil {
		return err
	}
	defer h.close()
	return h.set(a.Address, a.Ports, true)
}

func portmapDel(args *skel.CmdArgs) error {
	c, _, err := parsePortmap(args.StdinData)
	if err != nil {
		return err
	}
	path := filepath.Join(c.StateDir, fileOf(args.ContainerID, args.IfName))
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var a attachment
	if json.Unmarshal(text, &a) == nil && len(a.Ports) > 0 {
		h, err := openHostPorts()
		if err != nil {
			return err
		}
		defer h.close()
		if err := h.set(a.Address, a.Ports, false); err != nil && !gone(err) {
			return err
		}
	}
	return os.Remove(path)
}

func portmapCheck(args *skel.CmdArgs) error {
	c, _, err := parsePortmap(args.StdinData)
	if err != nil {
		return err
	}
	if len(c.published()) == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(c.StateDir, fileOf(args.ContainerID, args.IfName))); err != nil {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("container %s has no host ports here", args.ContainerID), "")
	}
	return nil
}

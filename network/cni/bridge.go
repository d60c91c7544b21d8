package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/sampan-dev/sampan/kit/nft"
)

// bridgeConf is upstream's configuration of the plugin bridge.
type bridgeConf struct {
	types.NetConf
	Bridge           string `json:"bridge"`
	IsGateway        bool   `json:"isGateway"`
	IsDefaultGateway bool   `json:"isDefaultGateway"`
	ForceAddress     bool   `json:"forceAddress"`
	IPMasq           bool   `json:"ipMasq"`
	MTU              int    `json:"mtu"`
	HairpinMode      bool   `json:"hairpinMode"`
	PromiscMode      bool   `json:"promiscMode"`
	Vlan             int    `json:"vlan"`
	VlanTrunk        []any  `json:"vlanTrunk"`
}

func parseBridge(data []byte) (*bridgeConf, error) {
	c := &bridgeConf{Bridge: "cni0"}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	if c.Vlan != 0 || len(c.VlanTrunk) > 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "vlan, vlanTrunk: not supported by this plugin", "")
	}
	if c.HairpinMode && c.PromiscMode {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "cannot set hairpin mode and promiscuous mode at the same time", "")
	}
	c.IsGateway = c.IsGateway || c.IsDefaultGateway
	return c, nil
}

// address asks the address manager: our own in process, another by its program.
func (c *bridgeConf) address(args *skel.CmdArgs) (*current.Result, error) {
	if c.IPAM.Type == "host-local" {
		h, err := parseHostLocal(args.StdinData)
		if err != nil {
			return nil, err
		}
		return h.allocate(args.ContainerID, args.IfName)
	}
	r, err := invoke.DelegateAdd(context.Background(), c.IPAM.Type, args.StdinData, nil)
	if err != nil {
		return nil, err
	}
	return current.NewResultFromResult(r)
}

// forget gives the address back.
func (c *bridgeConf) forget(args *skel.CmdArgs) error {
	switch c.IPAM.Type {
	case "":
		return nil
	case "host-local":
		h, err := parseHostLocal(args.StdinData)
		if err != nil {
			return err
		}
		return h.release(args.ContainerID, args.IfName)
	}
	return invoke.DelegateDel(context.Background(), c.IPAM.Type, args.StdinData, nil)
}

// attach connects a container.
func (c *bridgeConf) attach(args *skel.CmdArgs) (res *current.Result, err error) {
	res = &current.Result{CNIVersion: current.ImplementedSpecVersion}
	host, taken := hostName(args.ContainerID, args.IfName), false
	defer func() {
		if err != nil && taken { // leave nothing of a failed ADD
			err = errors.Join(err, disconnect(host), c.forget(args))
		}
	}()
	w := cable{MTU: c.MTU, Hairpin: c.HairpinMode, Default: c.IsDefaultGateway}
	var gateway netip.Prefix
	if c.IPAM.Type != "" {
		if res, err = c.address(args); err != nil {
			return nil, err
		}
		taken = true
		if len(res.IPs) != 1 {
			return nil, fmt.Errorf("IPAM plugin %s returned %d addresses, want one", c.IPAM.Type, len(res.IPs))
		}
		w.Address, w.Gateway, gateway = addresses(res.IPs[0], c.IsGateway)
		w.Routes, res.IPs[0].Gateway = res.Routes, w.Gateway.AsSlice()
	}
	var bridge netlink.Link
	if c.IsGateway {
		bridge, err = EnsureBridge(c.Bridge, gateway, c.MTU)
		if err == nil {
			err = forwardPackets()
		}
	} else {
		bridge, err = ensureLink(c.Bridge, c.MTU)
	}
	if err != nil {
		return nil, err
	}
	if err := connect(w, bridge, args.Netns, args.IfName, host); err != nil {
		return nil, err
	}
	if c.PromiscMode {
		if err := netlink.SetPromiscOn(bridge); err != nil {
			return nil, fmt.Errorf("bridge %s: promiscuous mode: %w", c.Bridge, err)
		}
	}
	if c.IPMasq && w.Address.IsValid() {
		if err := masqueradeOut(c.Bridge, w.Address.Masked()); err != nil {
			return nil, err
		}
	}
	inside := 2
	res.Interfaces = []*current.Interface{
		{Name: c.Bridge, Mac: bridge.Attrs().HardwareAddr.String()}, {Name: host},
		{Name: args.IfName, Sandbox: args.Netns, Mtu: c.MTU},
	}
	if w.Address.IsValid() {
		res.Interfaces[2].Mac, res.IPs[0].Interface = hardwareAddr(w.Address.Addr()).String(), &inside
	}
	if w.Default {
		res.Routes = append(res.Routes, &types.Route{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: w.Gateway.AsSlice()})
	}
	return res, nil
}

// addresses reads what an address manager gave: the container's address, its
// gateway, and with isGateway that the bridge is to have.
func addresses(ip *current.IPConfig, isGateway bool) (own netip.Prefix, gateway netip.Addr, bridge netip.Prefix) {
	a, _ := netip.AddrFromSlice(ip.Address.IP.To4())
	bits, _ := ip.Address.Mask.Size()
	own = netip.PrefixFrom(a, bits)
	gateway, _ = netip.AddrFromSlice(ip.Gateway.To4())
	if !gateway.IsValid() && isGateway {
		gateway = own.Masked().Addr().Next()
	}
	return own, gateway, netip.PrefixFrom(gateway, bits)
}

// forwardPackets makes the node a router, as a gateway must be.
func forwardPackets() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("failed to enable forwarding: %w", err)
	}
	return nil
}

// masqueradeOut makes what a bridge's containers send out of their range come
// from the node: one table a bridge, with one rule.
func masqueradeOut(bridge string, subnet netip.Prefix) error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	t := &nftables.Table{Name: "sampan-masquerade-" + bridge, Family: nftables.TableFamilyIPv4}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	post := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: nft.Of(nft.From(subnet, false), nft.To(subnet, true),
		nft.To(netip.MustParsePrefix("224.0.0.0/4"), true), nft.Masquerade())})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: table %s: %w", t.Name, err)
	}
	return nil
}

func bridgeAdd(args *skel.CmdArgs) error {
	c, err := parseBridge(args.StdinData)
	if err != nil {
		return err
	}
	res, err := c.attach(args)
	if err != nil {
		return err
	}
	return types.PrintResult(res, c.CNIVersion)
}

func bridgeDel(args *skel.CmdArgs) error {
	c, err := parseBridge(args.StdinData)
	if err != nil {
		return err
	}
	return c.detach(args)
}

// detach takes away what attach made, any number of times.
func (c *bridgeConf) detach(args *skel.CmdArgs) error {
	return errors.Join(disconnect(hostName(args.ContainerID, args.IfName)), c.forget(args))
}

func bridgeCheck(args *skel.CmdArgs) error {
	c, err := parseBridge(args.StdinData)
	if err != nil {
		return err
	}
	if !exists(c.Bridge) || !exists(hostName(args.ContainerID, args.IfName)) {
		return types.NewError(types.ErrInternal, fmt.Sprintf("container %s: its cable to %s is gone", args.ContainerID, c.Bridge), "delete the pod; a new one gets a new cable")
	}
	if c.IPAM.Type == "host-local" {
		return hostLocalCheck(args)
	}
	return nil
}

func bridgeStatus(args *skel.CmdArgs) error {
	_, err := parseBridge(args.StdinData)
	return err
}

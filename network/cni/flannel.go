package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// flannelConf is upstream's configuration of the plugin flannel: it has another
// plugin connect the container, with the range that flanneld wrote down.
type flannelConf struct {
	types.NetConf
	IPAM          map[string]any `json:"ipam,omitempty"`
	SubnetFile    string         `json:"subnetFile"`
	DataDir       string         `json:"dataDir"`
	Delegate      map[string]any `json:"delegate"`
	RuntimeConfig map[string]any `json:"runtimeConfig,omitempty"`
}

func parseFlannel(data []byte) (*flannelConf, error) {
	c := &flannelConf{SubnetFile: "/run/flannel/subnet.env", DataDir: "/var/lib/cni/flannel"}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	if c.Delegate == nil {
		c.Delegate = map[string]any{}
	}
	if kind, ok := c.Delegate["type"]; ok {
		if _, isText := kind.(string); !isText {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, "'delegate' dictionary, if present, must have (string) 'type' field", "")
		}
	}
	for _, field := range []string{"name", "ipam"} {
		if _, ok := c.Delegate[field]; ok {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, "'delegate' dictionary must not have '"+field+"' field, it'll be set by flannel", "")
		}
	}
	return c, nil
}

// subnetFile is what flanneld wrote down.
type subnetFile struct {
	network, subnet netip.Prefix
	mtu             int
	masquerade      bool
}

func readSubnetFile(path string) (f subnetFile, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		seen[key] = true
		switch key {
		case "FLANNEL_NETWORK":
			f.network, err = netip.ParsePrefix(strings.Split(value, ",")[0])
		case "FLANNEL_SUBNET":
			f.subnet, err = netip.ParsePrefix(value)
			f.subnet = f.subnet.Masked()
		case "FLANNEL_MTU":
			f.mtu, err = strconv.Atoi(value)
		case "FLANNEL_IPMASQ":
			f.masquerade, err = strconv.ParseBool(value)
		}
		if err != nil {
			return f, fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	var lacks []string
	for _, key := range []string{"FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"} {
		if !seen[key] {
			lacks = append(lacks, key)
		}
	}
	if len(lacks) > 0 {
		return f, fmt.Errorf("%s is missing %s", path, strings.Join(lacks, ", "))
	}
	return f, nil
}

// delegate is the configuration of the plugin that does the work.
func (c *flannelConf) delegate(f subnetFile) map[string]any {
	d := map[string]any{}
	for k, v := range c.Delegate {
		d[k] = v
	}
	usual := func(key string, v any) {
		if _, said := d[key]; !said {
			d[key] = v
		}
	}
	usual("type", "bridge")
	usual("ipMasq", !f.masquerade) // if flanneld is not doing it, we should
	usual("mtu", f.mtu)
	if d["type"] == "bridge" {
		usual("isGateway", true)
	}
	if c.CNIVersion != "" {
		d["cniVersion"] = c.CNIVersion
	}
	if c.RuntimeConfig != nil {
		d["runtimeConfig"] = c.RuntimeConfig
	}
	ipam := map[string]any{}
	for k, v := range c.IPAM {
		ipam[k] = v
	}
	if _, ok := ipam["type"]; !ok {
		ipam["type"] = "host-local"
	}
	ipam["ranges"] = []any{[]any{map[string]any{"subnet": f.subnet.String()}}}
	routes, _ := ipam["routes"].([]any)
	ipam["routes"] = append(routes, map[string]any{"dst": f.network.String()})
	d["name"], d["ipam"] = c.Name, ipam
	return d
}

func flannelAdd(args *skel.CmdArgs) error {
	c, err := parseFlannel(args.StdinData)
	if err != nil {
		return err
	}
	f, err := readSubnetFile(c.SubnetFile)
	if err != nil {
		return fmt.Errorf("failed to load flannel 'subnet.env' file: %w. Check the flannel pod log for this node", err)
	}
	d := c.delegate(f)
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(c.DataDir, args.ContainerID), text); err != nil {
		return err
	}
	kind, _ := d["type"].(string)
	if kind != "bridge" {
		res, err := invoke.DelegateAdd(context.Background(), kind, text, nil)
		if err != nil {
			return err
		}
		return types.PrintResult(res, c.CNIVersion)
	}
	b, err := parseBridge(text)
	if err != nil {
		return err
	}
	inner := *args
	inner.StdinData = text
	res, err := b.attach(&inner)
	if err != nil {
		return err
	}
	return types.PrintResult(res, c.CNIVersion)
}

func flannelDel(args *skel.CmdArgs) error {
	c, err := parseFlannel(args.StdinData)
	if err != nil {
		return err
	}
	path := filepath.Join(c.DataDir, args.ContainerID)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // DEL may come any number of times
	}
	if err != nil {
		return err
	}
	var d types.NetConf
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("failed to parse netconf: %w", err)
	}
	if d.Type == "bridge" {
		b, err := parseBridge(text)
		if err != nil {
			return err
		}
		inner := *args
		inner.StdinData = text
		if err := b.detach(&inner); err != nil {
			return err
		}
	} else if err := invoke.DelegateDel(context.Background(), d.Type, text, nil); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func flannelCheck(args *skel.CmdArgs) error {
	c, err := parseFlannel(args.StdinData)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, args.ContainerID)); err != nil {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("container %s has no interface here", args.ContainerID), "")
	}
	if !exists(hostName(args.ContainerID, args.IfName)) && (c.Delegate["type"] == nil || c.Delegate["type"] == "bridge") {
		return types.NewError(types.ErrInternal, fmt.Sprintf("container %s: its cable is gone", args.ContainerID), "delete the pod; a new one gets a new cable")
	}
	return nil
}

func flannelStatus(args *skel.CmdArgs) error {
	c, err := parseFlannel(args.StdinData)
	if err != nil {
		return err
	}
	if _, err := readSubnetFile(c.SubnetFile); err != nil {
		const notAvailable = 50 // CNI's number for "the plugin is not available"
		return types.NewError(notAvailable, "flannel is not running on this node: "+err.Error(), "")
	}
	return nil
}

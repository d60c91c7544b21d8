package cni

import (
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// plugins are the programs that the one executable is, by the name it is called by.
func plugins() map[string]skel.CNIFuncs {
	return map[string]skel.CNIFuncs{
		PluginName:   {Add: add, Del: del, Check: check, Status: status, GC: gc},
		"bridge":     {Add: bridgeAdd, Del: bridgeDel, Check: bridgeCheck, Status: bridgeStatus},
		"host-local": {Add: hostLocalAdd, Del: hostLocalDel, Check: hostLocalCheck, Status: noStatus},
		"portmap":    {Add: portmapAdd, Del: portmapDel, Check: portmapCheck, Status: noStatus},
		"loopback":   {Add: loopbackAdd, Del: loopbackDel, Check: loopbackCheck, Status: noStatus},
		"flannel":    {Add: flannelAdd, Del: flannelDel, Check: flannelCheck, Status: flannelStatus},
	}
}

// Names are the plugins besides Sampan's own, by upstream's names.
func Names() []string { return []string{"bridge", "flannel", "host-local", "loopback", "portmap"} }

// Main serves one CNI call described by the environment and standard input, and
// returns the exit code. name is what the program was called by.
func Main(name string, args []string) int {
	if name == "cp" {
		return copyMain(args)
	}
	funcs, known := plugins()[name]
	if !known {
		name, funcs = PluginName, plugins()[PluginName]
	}
	err := skel.PluginMainFuncsWithError(funcs, version.All, "CNI "+name+" plugin (in sampan)")
	if err != nil {
		_ = err.Print()
		return 1
	}
	return 0
}

func add(args *skel.CmdArgs) (err error) {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := openLedger(c.StateDir)
	if err != nil {
		return err
	}
	defer l.close()
	a, held := l.get(args.ContainerID, args.IfName)
	if !held {
		if a, err = l.take(c.subnet, args.ContainerID, args.IfName, c.RuntimeConfig.PortMappings); err != nil {
			return err
		}
	}
	host := hostName(args.ContainerID, args.IfName)
	defer func() {
		if err != nil { // leave nothing of a failed ADD
			err = errors.Join(err, undo(c, l, a, host))
		}
	}()
	bridge, err := EnsureBridge(c.Bridge, c.gateway(), c.MTU)
	if err != nil {
		return err
	}
	if err := connect(c.cable(a), bridge, args.Netns, args.IfName, host); err != nil {
		return err
	}
	if len(a.Ports) > 0 {
		h, err := openHostPorts()
		if err != nil {
			return err
		}
		defer h.close()
		if err := h.set(a.Address, a.Ports, true); err != nil {
			return err
		}
	}
	return types.PrintResult(result(c, a, args.Netns, host), c.CNIVersion)
}

func result(c *Config, a attachment, ns, host string) *current.Result {
	inside := 1
	gw := net.IP(c.gateway().Addr().AsSlice())
	return &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: host},
			{Name: a.Interface, Sandbox: ns, Mac: hardwareAddr(a.Address).String(), Mtu: c.MTU},
		},
		IPs: []*current.IPConfig{{
			Interface: &inside,
			Address:   net.IPNet{IP: a.Address.AsSlice(), Mask: net.CIDRMask(c.subnet.Bits(), 32)},
			Gateway:   gw,
		}},
		Routes: []*types.Route{{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: gw}},
		DNS:    c.DNS,
	}
}

func del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := openLedger(c.StateDir)
	if err != nil {
		return err
	}
	defer l.close()
	a, held := l.get(args.ContainerID, args.IfName)
	if !held {
		a = attachment{Container: args.ContainerID, Interface: args.IfName}
	}
	return undo(c, l, a, hostName(args.ContainerID, args.IfName))
}

// undo takes away what add made, as far as it got.
func undo(c *Config, l *ledger, a attachment, host string) error {
	var portsErr error
	if len(a.Ports) > 0 {
		h, err := openHostPorts()
		if err != nil {
			return err
		}
		defer h.close()
		if err := h.set(a.Address, a.Ports, false); err != nil && !gone(err) {
			portsErr = err
		}
	}
	if err := disconnect(host); err != nil {
		return errors.Join(portsErr, err)
	}
	if portsErr != nil {
		return portsErr
	}
	return l.drop(a.Container, a.Interface)
}

func check(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := openLedger(c.StateDir)
	if err != nil {
		return err
	}
	defer l.close()
	if _, held := l.get(args.ContainerID, args.IfName); !held {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("container %s has no interface %s here", args.ContainerID, args.IfName), "")
	}
	if !exists(hostName(args.ContainerID, args.IfName)) {
		return types.NewError(types.ErrInternal, fmt.Sprintf("container %s: its cable is gone", args.ContainerID), "delete the pod; a new one gets a new cable")
	}
	return nil
}

// status says whether ADD would work (CNI 1.1).
func status(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := openLedger(c.StateDir)
	if err != nil {
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
	l.close()
	return nil
}

// gc takes away what belongs to no attachment the runtime still knows (CNI 1.1).
func gc(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	l, err := openLedger(c.StateDir)
	if err != nil {
		return err
	}
	defer l.close()
	valid := map[string]bool{}
	for _, a := range c.ValidAttachments {
		valid[fileOf(a.ContainerID, a.IfName)] = true
	}
	var errs []error
	for name, a := range l.all {
		if !valid[name] {
			errs = append(errs, undo(c, l, a, hostName(a.Container, a.Interface)))
		}
	}
	return errors.Join(errs...)
}

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// loopback sets a namespace's loopback up or down.
func loopback(nsPath string, change func(netlink.Link) error) error {
	ns, err := os.Open(nsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	return inNamespace(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return change(lo)
	})
}

func loopbackAdd(args *skel.CmdArgs) error {
	var conf types.NetConf
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	if err := loopback(args.Netns, netlink.LinkSetUp); err != nil {
		return err
	}
	inside := 0
	return types.PrintResult(&current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: "lo", Mac: "00:00:00:00:00:00", Sandbox: args.Netns}},
		IPs:        []*current.IPConfig{{Interface: &inside, Address: net.IPNet{IP: net.IPv4(127, 0, 0, 1).To4(), Mask: net.CIDRMask(8, 32)}}},
	}, conf.CNIVersion)
}

func loopbackDel(args *skel.CmdArgs) error {
	err := os.ErrNotExist
	if args.Netns != "" {
		err = loopback(args.Netns, netlink.LinkSetDown)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil // the namespace is gone, and its loopback with it
	}
	return err
}

func loopbackCheck(args *skel.CmdArgs) error {
	return loopback(args.Netns, func(lo netlink.Link) error {
		if lo.Attrs().Flags&net.FlagUp == 0 {
			return errors.New("loopback interface is down")
		}
		return nil
	})
}

// copyMain is cp, for images that have no other program: flannel's manifests put
// its plugin and configuration in place by it. The target is replaced whole, so
// that a plugin that runs at the moment is no obstacle.
func copyMain(args []string) int {
	var names []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			names = append(names, a)
		}
	}
	if len(names) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cp [-f] SOURCE TARGET")
		return 2
	}
	if err := copyFile(names[0], names[1]); err != nil {
		fmt.Fprintln(os.Stderr, "cp:", err)
		return 1
	}
	return 0
}

func copyFile(source, target string) error {
	if st, err := os.Stat(target); err == nil && st.IsDir() {
		target = filepath.Join(target, filepath.Base(source))
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", source)
	}
	out, err := os.CreateTemp(filepath.Dir(target), ".cp-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(st.Mode().Perm()), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), target)
}

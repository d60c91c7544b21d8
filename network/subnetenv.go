package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// SubnetFile is where flannel's plugins look for the node's range.
const SubnetFile = "/run/flannel/subnet.env"

// subnetEnv is the text of the file, flannel's.
func subnetEnv(network, pods netip.Prefix, mtu int, masquerade bool) string {
	gateway := netip.PrefixFrom(pods.Masked().Addr().Next(), pods.Bits())
	return fmt.Sprintf("FLANNEL_NETWORK=%s\nFLANNEL_SUBNET=%s\nFLANNEL_MTU=%d\nFLANNEL_IPMASQ=%v\n", network, gateway, mtu, masquerade)
}

// lastSubnet is the range that a life before had, if the file tells.
func lastSubnet(path string) netip.Prefix {
	text, err := os.ReadFile(path)
	if err != nil {
		return netip.Prefix{}
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "FLANNEL_SUBNET="); ok {
			if p, err := netip.ParsePrefix(value); err == nil {
				return p.Masked()
			}
		}
	}
	return netip.Prefix{}
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

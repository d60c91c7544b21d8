package kubeadm

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/nft"
)

// cniDirs hold which pod has which address, and what a node's network is.
var cniDirs = []string{"/var/lib/cni", "/run/flannel"}

// isPodLink says whether a link is of the pods' network: its bridge, and what
// leads from node to node. Pods' own links go with their sandboxes.
func isPodLink(name string) bool {
	return name == "cni0" || name == "flannel0" || strings.HasPrefix(name, "flannel.")
}

// isNodeTable says whether a table of nftables is kube-proxy's or the pods' network's.
func isNodeTable(name string) bool {
	return slices.Contains([]string{"sampan-proxy", "sampan-masquerade", "sampan-hostports"}, name) || strings.HasPrefix(name, "sampan-masquerade-")
}

// cleanNetwork takes out of the kernel what a node's pods and services had there.
// What another network add-on made under other names stays.
func cleanNetwork(say func(string, ...any)) {
	links, err := net.Interfaces()
	if err != nil {
		say("[reset] WARNING: %v", err)
	}
	for _, l := range links {
		if !isPodLink(l.Name) {
			continue
		}
		say("[reset] Deleting the network link %s", l.Name)
		if err := deleteLink(l.Index); err != nil {
			say("[reset] WARNING: link %s: %v; run: ip link delete %[1]s", l.Name, err)
		}
	}
	if err := deleteTables(say); err != nil {
		say("[reset] WARNING: %v; `nft list tables` shows what is there", err)
	}
	for _, dir := range cniDirs {
		if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
			say("[reset] Deleting contents of directory: %s", dir)
			empty(dir, say)
		}
	}
}

func deleteTables(say func(string, ...any)) error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range tables {
		if isNodeTable(t.Name) {
			say("[reset] Deleting the nftables table %s", t.Name)
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// deleteLink is `ip link delete`, which not every machine has.
func deleteLink(index int) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	e := binary.NativeEndian
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	e.PutUint32(m, uint32(len(m)))
	e.PutUint16(m[4:], unix.RTM_DELLINK)
	e.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	e.PutUint32(m[unix.SizeofNlMsghdr+4:], uint32(index))
	if err := unix.Sendto(s, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || e.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("the kernel's answer is no acknowledgement")
	}
	if code := int32(e.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

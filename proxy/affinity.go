package proxy

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/google/nftables"

	"github.com/sampan-dev/sampan/kit/nft"
)

// The maps of clients that stay with an endpoint, filled by the kernel itself.
const (
	affinity     = "affinity"      // client . address . protocol . port : address . port
	nodeAffinity = "node-affinity" // client . protocol . port : address . port
)

// affinitySize bounds each affinity map; beyond it new clients are not remembered.
const affinitySize = 65536

// The registers of a sticky client's key, apart from those of the endpoint chosen.
const (
	stickyReg0 = 2
	stickyReg1 = 13
	stickyReg2 = 14
	stickyReg3 = 15
)

// forget makes the kernel forget endpoints that left: clients that stay with
// one, and UDP conversations, which have no end of their own.
func (t *table) forget(gone map[Endpoint]bool) error {
	if len(gone) == 0 {
		return nil
	}
	keys := map[string]bool{}
	for e := range gone {
		keys[string(nft.Key(e.Addr, e.Port))] = true
	}
	for _, name := range []string{affinity, nodeAffinity} {
		els, err := t.conn.GetSetElements(t.sets[name])
		if err != nil {
			return fmt.Errorf("proxy: map %s: %w", name, err)
		}
		var drop []nftables.SetElement
		for _, el := range els {
			if keys[string(el.Val)] {
				drop = append(drop, nftables.SetElement{Key: el.Key, Val: el.Val})
			}
		}
		if len(drop) == 0 {
			continue
		}
		if err := t.conn.SetDeleteElements(t.sets[name], drop); err != nil {
			return err
		}
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("proxy: forget clients of endpoints that left: %w", err)
	}
	return forgetFlows(gone)
}

// forgetFlows removes UDP conversations that answer from a departed endpoint.
func forgetFlows(gone map[Endpoint]bool) error {
	for e := range gone {
		f := &netlink.ConntrackFilter{}
		if err := f.AddProtocol(unix.IPPROTO_UDP); err != nil {
			return err
		}
		if err := f.AddIP(netlink.ConntrackReplySrcIP, net.IP(e.Addr.AsSlice())); err != nil {
			return err
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
			return fmt.Errorf("proxy: conntrack: %w", err)
		}
	}
	return nil
}

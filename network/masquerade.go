package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"

	"github.com/sampan-dev/sampan/kit/nft"
)

// masqueradeTable holds the rules by which pods' traffic to the world comes
// from the node.
const masqueradeTable = "sampan-masquerade"

// masquerade lays flannel's rules anew, in one transaction: what pods send out
// of the network, and what reaches other nodes' pods from outside of it, comes
// from this node. What goes to this node's own pods keeps its source.
func masquerade(pods, network netip.Prefix) error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	t := &nftables.Table{Name: masqueradeTable, Family: nftables.TableFamilyIPv4}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	post := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	for _, rule := range []nft.Rule{
		nft.Of(nft.From(network, false), nft.To(network, true), nft.To(multicast, true), nft.Masquerade()),
		nft.Of(nft.From(network, true), nft.To(network, false), nft.To(pods, true), nft.Masquerade()),
	} {
		c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: rule})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: table %s: %w", masqueradeTable, err)
	}
	return nil
}

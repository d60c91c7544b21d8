package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"

	"github.com/sampan-dev/sampan/kit/nft"
)

// masqueradeTable holds the one rule that makes pods' traffic to the world come
// from the node.
const masqueradeTable = "sampan-masquerade"

// masquerade lays the rule anew, in one transaction.
func masquerade(pods, cluster netip.Prefix) error {
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
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: nft.Of(
		nft.From(pods, false), nft.To(cluster, true), nft.To(multicast, true), nft.Masquerade())})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: table %s: %w", masqueradeTable, err)
	}
	return nil
}

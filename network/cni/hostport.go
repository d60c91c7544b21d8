package cni

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"

	"github.com/sampan-dev/sampan/kit/nft"
)

// HostPortTable is the nftables table of host ports.
const HostPortTable = "sampan-hostports"

// hostPorts are the maps that host ports live in: one lookup a packet, whatever
// their number.
type hostPorts struct {
	conn *nftables.Conn
	any  *nftables.Set // protocol . port : address . port
	one  *nftables.Set // host address . protocol . port : address . port
	self *nftables.Set // address . address: a container that calls its own host port
}

// openHostPorts makes the table if it is not there. Making it again changes nothing
// but the rules, which are laid anew in the same transaction.
func openHostPorts() (*hostPorts, error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	have, err := c.ListTableOfFamily(HostPortTable, nftables.TableFamilyIPv4)
	fresh := err != nil || have == nil
	t := c.AddTable(&nftables.Table{Name: HostPortTable, Family: nftables.TableFamilyIPv4})
	target := nft.Concat(nftables.TypeIPAddr, nftables.TypeInetService)
	h := &hostPorts{
		conn: c,
		any: &nftables.Set{Table: t, Name: "ports", IsMap: true, Concatenation: true,
			KeyType: nft.Concat(nftables.TypeInetProto, nftables.TypeInetService), DataType: target},
		one: &nftables.Set{Table: t, Name: "address-ports", IsMap: true, Concatenation: true,
			KeyType: nft.Concat(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService), DataType: target},
		self: &nftables.Set{Table: t, Name: "hairpin", Concatenation: true,
			KeyType: nft.Concat(nftables.TypeIPAddr, nftables.TypeIPAddr)},
	}
	if !fresh {
		return h, nil
	}
	for _, s := range []*nftables.Set{h.any, h.one, h.self} {
		if err := c.AddSet(s, nil); err != nil {
			return nil, err
		}
	}
	h.rules(t)
	if err := c.Flush(); err != nil {
		return nil, fmt.Errorf("nftables: table %s: %w", HostPortTable, err)
	}
	return h, nil
}

func (h *hostPorts) rules(t *nftables.Table) {
	// Before the service proxy's own chains, so that a host port wins over a
	// node port of the same number, as upstream has it.
	before := nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest - 10)
	for name, hook := range map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput,
	} {
		ch := h.conn.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: before})
		h.conn.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: nft.Of(nft.ToLocal(),
			nft.DestAddr(nft.Reg0), nft.L4Proto(nft.Reg1), nft.DestPort(nft.Reg2), nft.Map(h.one), nft.DNAT())})
		h.conn.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: nft.Of(nft.ToLocal(),
			nft.L4Proto(nft.Reg0), nft.DestPort(nft.Reg1), nft.Map(h.any), nft.DNAT())})
	}
	post := h.conn.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	h.conn.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: nft.Of(
		nft.SourceAddr(nft.Reg0), nft.DestAddr(nft.Reg1), nft.Lookup(h.self), nft.Masquerade())})
	self := netip.MustParsePrefix("127.0.0.0/8")
	h.conn.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: nft.Of(nft.From(self, false), nft.To(self, true), nft.Masquerade())})
}

func (h *hostPorts) close() { _ = h.conn.CloseLasting() }

// elements are the map entries of one container's ports.
func (h *hostPorts) elements(ip netip.Addr, ports []PortMapping) (any, one []nftables.SetElement, err error) {
	for _, p := range ports {
		proto, ok := nft.Protocol(strings.ToUpper(p.Protocol))
		if !ok {
			return nil, nil, fmt.Errorf("host port %d: protocol %q is not TCP, UDP or SCTP", p.HostPort, p.Protocol)
		}
		val := nft.Key(ip, p.ContainerPort)
		host, err := netip.ParseAddr(p.HostIP)
		if p.HostIP == "" || (err == nil && host.IsUnspecified()) {
			any = append(any, nftables.SetElement{Key: nft.Key(proto, p.HostPort), Val: val})
			continue
		}
		if err != nil || !host.Is4() {
			return nil, nil, fmt.Errorf("host port %d: address %q is not IPv4", p.HostPort, p.HostIP)
		}
		one = append(one, nftables.SetElement{Key: nft.Key(host, proto, p.HostPort), Val: val})
	}
	return any, one, nil
}

// set adds or removes one container's ports.
func (h *hostPorts) set(ip netip.Addr, ports []PortMapping, add bool) error {
	any, one, err := h.elements(ip, ports)
	if err != nil {
		return err
	}
	change := h.conn.SetAddElements
	if !add {
		change = h.conn.SetDeleteElements
	}
	self := []nftables.SetElement{{Key: nft.Key(ip, ip)}}
	for s, e := range map[*nftables.Set][]nftables.SetElement{h.any: any, h.one: one, h.self: self} {
		if len(e) == 0 {
			continue
		}
		if err := change(s, e); err != nil {
			return err
		}
	}
	if err := h.conn.Flush(); err != nil {
		return fmt.Errorf("nftables: host ports of %s: %w", ip, err)
	}
	return nil
}

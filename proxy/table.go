package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/nft"
)

// TableName is the nftables table that is ours.
const TableName = "sampan-proxy"

// masqueradeMark is upstream's bit for connections to be masqueraded.
const masqueradeMark = 0x4000

// elementsPerMessage keeps a message's list of elements, an attribute with a
// length of 16 bits, below 64 KiB.
const elementsPerMessage = 400

// table is our table in the kernel, and what we know to be in it.
type table struct {
	cfg    Config
	conn   *nftables.Conn
	t      *nftables.Table
	sets   map[string]*nftables.Set
	chains map[string]*nftables.Chain
}

// types of the parts of keys.
var (
	ip, proto = nftables.TypeIPAddr, nftables.TypeInetProto
	port, num = nftables.TypeInetService, nftables.TypeMark
)

// openTable lays the table anew, empty, in one transaction with the first
// change: connections see the old rules or the new ones, never none.
func openTable(cfg Config) (*table, error) {
	c, err := nft.Open()
	if err != nil {
		return nil, err
	}
	t := &table{cfg: cfg, conn: c, sets: map[string]*nftables.Set{}, chains: map[string]*nftables.Chain{}}
	t.t = &nftables.Table{Name: TableName, Family: nftables.TableFamilyIPv4}
	c.AddTable(t.t)
	c.DelTable(t.t)
	c.AddTable(t.t)
	for _, name := range []string{services, nodePorts, hairpin, noEndpoints, noNodeEndpoints, affinity, nodeAffinity} {
		if err := t.ensureSet(name); err != nil {
			return nil, err
		}
	}
	t.baseChains()
	return t, nil
}

func (t *table) close() { _ = t.conn.CloseLasting() }

func (t *table) baseChains() {
	dispatch := t.chain("dispatch")
	t.rule(dispatch, nft.DestAddr(nft.Reg0), nft.L4Proto(nft.Reg1), nft.DestPort(nft.Reg2), nft.VerdictMap(t.sets[services]))
	t.rule(dispatch, nft.ToLocal(), nft.L4Proto(nft.Reg0), nft.DestPort(nft.Reg1), nft.VerdictMap(t.sets[nodePorts]))
	for name, hook := range map[string]*nftables.ChainHook{"prerouting": nftables.ChainHookPrerouting, "output": nftables.ChainHookOutput} {
		t.rule(t.base(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest), nft.Jump("dispatch"))
	}
	post := t.base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule(post, nft.Marked(masqueradeMark), nft.MarkClear(masqueradeMark), nft.Masquerade())
	t.rule(post, nft.SourceAddr(nft.Reg0), nft.DestAddr(nft.Reg1), nft.Lookup(t.sets[hairpin]), nft.Masquerade())

	// Callers on loopback, of node ports above all: an endpoint elsewhere could not answer them.
	t.rule(post, nft.From(loopback, false), nft.To(loopback, true), nft.Masquerade())
	refuse := t.chain("refuse")
	for _, reject := range []nft.Rule{nft.RejectTCP(), nft.Reject()} {
		t.rule(refuse, nft.DestAddr(nft.Reg0), nft.L4Proto(nft.Reg1), nft.DestPort(nft.Reg2), nft.Lookup(t.sets[noEndpoints]), reject)
		t.rule(refuse, nft.ToLocal(), nft.L4Proto(nft.Reg0), nft.DestPort(nft.Reg1), nft.Lookup(t.sets[noNodeEndpoints]), reject)
	}
	for name, hook := range map[string]*nftables.ChainHook{
		"filter-input": nftables.ChainHookInput, "filter-forward": nftables.ChainHookForward, "filter-output": nftables.ChainHookOutput,
	} {
		c := t.base(name, nftables.ChainTypeFilter, hook, nftables.ChainPriorityFilter)
		if name == "filter-input" {
			t.rule(c, nft.From(loopback, true), nft.To(loopback, false), uninvited(), nft.Drop())
		}
		t.rule(c, nft.Jump("refuse"))
	}
}

// loopback is this machine to itself.
var loopback = netip.MustParsePrefix("127.0.0.0/8")

// uninvited matches packets that belong to no connection of ours and were not
// readdressed: with routes to loopback switched on, a neighbour could otherwise
// speak to what listens on loopback alone.
func uninvited() nft.Rule {
	const established, related, readdressed = 1 << 1, 1 << 2, 1 << 5
	var r nft.Rule
	for _, m := range []struct {
		key  expr.CtKey
		bits uint32
	}{{expr.CtKeySTATE, established | related}, {expr.CtKeySTATUS, readdressed}} {
		r = append(r, &expr.Ct{Key: m.key, Register: nft.Scratch},
			&expr.Bitwise{SourceRegister: nft.Scratch, DestRegister: nft.Scratch, Len: 4, Mask: nft.Key(m.bits), Xor: nft.Key(uint32(0))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: nft.Scratch, Data: nft.Key(uint32(0))})
	}
	return r
}

// routeLoopback lets packets from loopback be routed to endpoints elsewhere, as
// upstream does for node ports asked at 127.0.0.1. The rule that keeps
// neighbours out must be there first.
func routeLoopback() error {
	const path = "/proc/sys/net/ipv4/conf/all/route_localnet"
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return fmt.Errorf("node ports at 127.0.0.1 reach endpoints of this node only: %w", err)
	}
	return nil
}

func (t *table) chain(name string) *nftables.Chain {
	c := t.conn.AddChain(&nftables.Chain{Name: name, Table: t.t})
	t.chains[name] = c
	return c
}

func (t *table) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Name: name, Table: t.t, Type: kind, Hooknum: hook, Priority: prio})
}

func (t *table) rule(c *nftables.Chain, parts ...nft.Rule) {
	t.conn.AddRule(&nftables.Rule{Table: t.t, Chain: c, Exprs: nft.Of(parts...)})
}

// ensureSet makes the named map or set if it is not there.
func (t *table) ensureSet(name string) error {
	if t.sets[name] != nil {
		return nil
	}
	s := &nftables.Set{Table: t.t, Name: name, Concatenation: true}
	switch {
	case name == services:
		s.KeyType, s.DataType, s.IsMap = nft.Concat(ip, proto, port), nftables.TypeVerdict, true
	case name == nodePorts:
		s.KeyType, s.DataType, s.IsMap = nft.Concat(proto, port), nftables.TypeVerdict, true
	case name == hairpin:
		s.KeyType = nft.Concat(ip, ip)
	case name == noEndpoints:
		s.KeyType = nft.Concat(ip, proto, port)
	case name == noNodeEndpoints:
		s.KeyType = nft.Concat(proto, port)
	case name == affinity:
		s.KeyType, s.DataType, s.IsMap, s.Dynamic, s.HasTimeout = nft.Concat(ip, ip, proto, port), nft.Concat(ip, port), true, true, true
		s.Size = affinitySize
	case name == nodeAffinity:
		s.KeyType, s.DataType, s.IsMap, s.Dynamic, s.HasTimeout = nft.Concat(ip, proto, port), nft.Concat(ip, port), true, true, true
		s.Size = affinitySize
	case strings.HasPrefix(name, nodeEndpoints):
		s.KeyType, s.DataType, s.IsMap = nft.Concat(proto, port, num), nft.Concat(ip, port), true
	case strings.HasPrefix(name, endpoints):
		s.KeyType, s.DataType, s.IsMap = nft.Concat(ip, proto, port, num), nft.Concat(ip, port), true
	}
	if err := t.conn.AddSet(s, nil); err != nil {
		return fmt.Errorf("proxy: map %s: %w", name, err)
	}
	t.sets[name] = s
	return nil
}

// apply makes c's difference in one transaction.
func (t *table) apply(c *change) error {
	for name := range c.sets {
		if err := t.ensureSet(name); err != nil {
			return err
		}
	}
	for e, v := range c.put {
		if e.Set == services || e.Set == nodePorts {
			if err := t.ensureChooser(v); err != nil {
				return err
			}
		}
	}
	gone, come := map[string][]nftables.SetElement{}, map[string][]nftables.SetElement{}
	for e, v := range c.del {
		gone[e.Set] = append(gone[e.Set], element(e, v))
	}
	for e, v := range c.put {
		come[e.Set] = append(come[e.Set], element(e, v))
	}
	for name, els := range gone {
		for some := range slices.Chunk(els, elementsPerMessage) {
			if err := t.conn.SetDeleteElements(t.sets[name], some); err != nil {
				return err
			}
		}
	}
	for name, els := range come {
		for some := range slices.Chunk(els, elementsPerMessage) {
			if err := t.conn.SetAddElements(t.sets[name], some); err != nil {
				return err
			}
		}
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("proxy: nftables: %w", err)
	}
	return nil
}

func element(e Element, v string) nftables.SetElement {
	el := nftables.SetElement{Key: []byte(e.Key)}
	switch {
	case e.Set == services || e.Set == nodePorts:
		el.VerdictData = nft.Goto(v)
	case v != "":
		el.Val = []byte(v)
	}
	return el
}

// ensureChooser makes the chain of that name (target.chain): it marks what must
// be masqueraded, keeps sticky clients, and chooses at random.
func (t *table) ensureChooser(name string) error {
	if t.chains[name] != nil {
		return nil
	}
	w, err := parseChooser(name)
	if err != nil {
		return err
	}
	prefix, key := endpoints, append(nft.DestAddr(nft.Reg0), append(nft.L4Proto(nft.Reg1), nft.DestPort(nft.Reg2)...)...)
	last := uint32(nft.Reg3)
	if w.node {
		prefix, key = nodeEndpoints, append(nft.L4Proto(nft.Reg0), nft.DestPort(nft.Reg1)...)
		last = nft.Reg2
	}
	set := prefix + strconv.Itoa(w.n)
	if err := t.ensureSet(set); err != nil {
		return err
	}
	c := t.chain(name)
	switch w.kind {
	case "cluster":
		if !w.node {
			t.rule(c, nft.From(t.cfg.ClusterCIDR, true), nft.MarkSet(masqueradeMark))
			break
		}
		t.rule(c, nft.MarkSet(masqueradeMark))
	case "external":
		t.rule(c, nft.MarkSet(masqueradeMark))
	}
	if w.sticky > 0 {
		t.sticky(c, w, append(key, nft.Random(last, uint32(w.n))...), set)
		return nil
	}
	t.rule(c, key, nft.Random(last, uint32(w.n)), nft.Map(t.sets[set]), nft.DNAT())
	return nil
}

// chooser is a chain's name, taken apart.
type chooser struct {
	node   bool
	kind   string
	n      int
	sticky time.Duration
}

func parseChooser(name string) (chooser, error) {
	rest, seconds, sticky := strings.Cut(name, "-sticky-")
	var w chooser
	if sticky {
		s, err := strconv.Atoi(seconds)
		if err != nil {
			return w, fmt.Errorf("proxy: chain %q: %w", name, err)
		}
		w.sticky = time.Duration(s) * time.Second
	}
	place, rest, _ := strings.Cut(rest, "-")
	i := strings.LastIndexByte(rest, '-')
	if i < 0 {
		return w, fmt.Errorf("proxy: chain %q: not one of ours", name)
	}
	n, err := strconv.Atoi(rest[i+1:])
	if err != nil {
		return w, fmt.Errorf("proxy: chain %q: %w", name, err)
	}
	w.node, w.kind, w.n = place == "node", rest[:i], n
	return w, nil
}

// sticky lays the two rules of session affinity: a client known in the affinity
// map goes where it went, any other is entered there. Both set the clock anew.
func (t *table) sticky(c *nftables.Chain, w chooser, choose nft.Rule, endpointSet string) {
	name, client := affinity, nft.Of(nft.SourceAddr(stickyReg0), nft.DestAddr(stickyReg1), nft.L4Proto(stickyReg2), nft.DestPort(stickyReg3))
	if w.node {
		name, client = nodeAffinity, nft.Of(nft.SourceAddr(stickyReg0), nft.L4Proto(stickyReg1), nft.DestPort(stickyReg2))
	}
	remember := nft.Rule{&expr.Dynset{SrcRegKey: stickyReg0, SrcRegData: nft.Reg0, SetName: name,
		Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: w.sticky}}
	known := nft.Rule{&expr.Lookup{SourceRegister: stickyReg0, DestRegister: nft.Reg0, IsDestRegSet: true, SetName: name}}
	t.rule(c, client, known, remember, nft.DNAT())
	t.rule(c, choose, nft.Map(t.sets[endpointSet]), client, remember, nft.DNAT())
}

// Cleanup removes the rules of this and any earlier life.
func Cleanup() error {
	c, err := nft.Open()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	t := &nftables.Table{Name: TableName, Family: nftables.TableFamilyIPv4}
	c.AddTable(t) // so that removing it is no error when it is not there
	c.DelTable(t)
	return c.Flush()
}

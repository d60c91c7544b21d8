// Package nft builds nftables rules whose work is done by maps.
//
// Job: a connection fit for large batches, the few expressions our rules are
// made of, and the byte layout of concatenated keys.
//
// Not its job: which rules there are (proxy, network).
//
// Layout: the kernel loads each part of a concatenated key into registers of
// four bytes, so parts are padded to four; the first part sits in register 1,
// the next ones in 9, 10, … (names of the same file of registers).
package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of the parts of a concatenated key, in order.
const (
	Reg0 = 1
	Reg1 = 9
	Reg2 = 10
	Reg3 = 11
	// Scratch holds values that are no part of a key.
	Scratch = 15
)

// bufferSize is enough for one batch of some hundred thousand elements; the
// kernel's default refuses a few thousand with "message too long".
const bufferSize = 64 << 20

// Open returns a lasting connection to the nftables of the calling thread's
// network namespace. Close it with CloseLasting.
func Open() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(forceBuffers))
	if err != nil {
		return nil, fmt.Errorf("nftables: open: %w", err)
	}
	return c, nil
}

// Concat returns the type of keys made of parts; the parts' types must be known to nft.
func Concat(parts ...nftables.SetDatatype) nftables.SetDatatype {
	t, err := nftables.ConcatSetType(parts...)
	if err != nil {
		panic(err) // more parts than the kernel knows: a programming error
	}
	return t
}

// Key lays out the parts of a key: netip.Addr, uint8 (protocol), uint16 (port)
// and uint32 (a number in the machine's order, such as numgen's).
func Key(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case netip.Addr:
			b = append(b, v.AsSlice()...)
		case uint8:
			b = append(b, v, 0, 0, 0)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
			b = append(b, 0, 0)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, v)
		default:
			panic(fmt.Sprintf("nft: key part of type %T", p))
		}
	}
	return b
}

// Protocol returns the number of "TCP", "UDP" or "SCTP".
func Protocol(name string) (uint8, bool) {
	switch name {
	case "TCP":
		return unix.IPPROTO_TCP, true
	case "UDP":
		return unix.IPPROTO_UDP, true
	case "SCTP":
		return unix.IPPROTO_SCTP, true
	}
	return 0, false
}

// Rule is a sequence of expressions, built from parts.
type Rule []expr.Any

// Of joins parts into one rule.
func Of(parts ...Rule) []expr.Any {
	var r []expr.Any
	for _, p := range parts {
		r = append(r, p...)
	}
	return r
}

// SourceAddr loads the packet's IPv4 source address.
func SourceAddr(reg uint32) Rule { return payload(reg, expr.PayloadBaseNetworkHeader, 12, 4) }

// DestAddr loads the packet's IPv4 destination address.
func DestAddr(reg uint32) Rule { return payload(reg, expr.PayloadBaseNetworkHeader, 16, 4) }

// DestPort loads the packet's destination port.
func DestPort(reg uint32) Rule { return payload(reg, expr.PayloadBaseTransportHeader, 2, 2) }

func payload(reg uint32, base expr.PayloadBase, offset, n uint32) Rule {
	return Rule{&expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: n}}
}

// L4Proto loads the packet's transport protocol.
func L4Proto(reg uint32) Rule { return Rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}} }

// OriginalDest loads the destination the connection was opened to, before NAT.
func OriginalDest(addrReg, portReg uint32) Rule {
	return Rule{
		&expr.Ct{Key: unix.NFT_CT_DST_IP, Register: addrReg, Direction: 0},
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: portReg, Direction: 0},
	}
}

// Random loads a random number below n.
func Random(reg, n uint32) Rule {
	return Rule{&expr.Numgen{Register: reg, Modulus: n, Type: unix.NFT_NG_RANDOM}}
}

// ToLocal matches packets addressed to this machine.
func ToLocal() Rule {
	return Rule{
		&expr.Fib{Register: Scratch, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Scratch, Data: Key(uint32(unix.RTN_LOCAL))},
	}
}

// Lookup continues only if the key at Reg0 is in set.
func Lookup(set *nftables.Set) Rule {
	return Rule{&expr.Lookup{SourceRegister: Reg0, SetName: set.Name, SetID: set.ID}}
}

// Map continues only if the key at Reg0 is in set, and loads its value at Reg0.
func Map(set *nftables.Set) Rule {
	return Rule{&expr.Lookup{SourceRegister: Reg0, DestRegister: Reg0, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}}
}

// VerdictMap goes where the value of the key at Reg0 says.
func VerdictMap(set *nftables.Set) Rule {
	return Rule{&expr.Lookup{SourceRegister: Reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID}}
}

// DNAT sends the connection to the address at Reg0 and the port at Reg1.
func DNAT() Rule {
	return Rule{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: Reg0, RegProtoMin: Reg1}}
}

// Masquerade makes the packet come from this machine.
func Masquerade() Rule { return Rule{&expr.Masq{}} }

// MarkSet sets bit in the packet's mark.
func MarkSet(bit uint32) Rule {
	return Rule{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Scratch},
		&expr.Bitwise{SourceRegister: Scratch, DestRegister: Scratch, Len: 4, Mask: Key(^uint32(0) &^ bit), Xor: Key(bit)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Scratch, SourceRegister: true},
	}
}

// MarkClear clears bit in the packet's mark.
func MarkClear(bit uint32) Rule {
	return Rule{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Scratch},
		&expr.Bitwise{SourceRegister: Scratch, DestRegister: Scratch, Len: 4, Mask: Key(^uint32(0) &^ bit), Xor: Key(uint32(0))},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Scratch, SourceRegister: true},
	}
}

// Marked matches packets with bit in their mark.
func Marked(bit uint32) Rule {
	return Rule{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: Scratch},
		&expr.Bitwise{SourceRegister: Scratch, DestRegister: Scratch, Len: 4, Mask: Key(bit), Xor: Key(uint32(0))},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: Scratch, Data: Key(uint32(0))},
	}
}

// From matches packets with a source in (or, with not, outside) prefix.
func From(prefix netip.Prefix, not bool) Rule { return within(12, prefix, not) }

// To matches packets with a destination in (or, with not, outside) prefix.
func To(prefix netip.Prefix, not bool) Rule { return within(16, prefix, not) }

func within(offset uint32, prefix netip.Prefix, not bool) Rule {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix.Bits()))
	if prefix.Bits() == 0 {
		mask = make([]byte, 4)
	}
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return append(payload(Scratch, expr.PayloadBaseNetworkHeader, offset, 4),
		&expr.Bitwise{SourceRegister: Scratch, DestRegister: Scratch, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: Scratch, Data: prefix.Masked().Addr().AsSlice()})
}

// Jump and Goto continue in another chain; Jump comes back.
func Jump(chain string) Rule { return Rule{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

// Goto continues in another chain and does not come back.
func Goto(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

// RejectTCP refuses a TCP packet with a reset, which a connecting caller sees at
// once even on this machine; it does not match other packets.
func RejectTCP() Rule {
	return Rule{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: Scratch},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Scratch, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}
}

// Reject refuses the packet with ICMP port unreachable.
func Reject() Rule { return Rule{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}} }

// Drop drops the packet.
func Drop() Rule { return Rule{&expr.Verdict{Kind: expr.VerdictDrop}} }

// OutBy matches packets that leave by the named link.
func OutBy(link string) Rule {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, link)
	return Rule{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 2, Data: name},
	}
}

package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// protocol is VRRP's number among IP's protocols, and ttl what every advert has:
// one that came through a router has less.
const (
	protocol = 112
	ttl      = 255
)

// group is where adverts go unless there is a list of peers.
var group = netip.AddrFrom4([4]byte{224, 0, 0, 18})

// Advert is what a holder says.
type Advert struct {
	Version  int // 2 or 3
	Router   uint8
	Priority uint8 // 0: the holder leaves
	Interval time.Duration
	Addrs    []netip.Addr
	Password string // of version 2; "" for none
}

// The kinds of authentication of version 2.
const (
	noAuth   = 0
	passAuth = 1
	passLen  = 8
)

// Encode writes an advert as it stands in a packet from src to dst.
func (a Advert) Encode(src, dst netip.Addr) []byte {
	b := []byte{byte(a.Version<<4 | 1), a.Router, a.Priority, byte(len(a.Addrs)), 0, 0, 0, 0}
	if a.Version == 2 {
		b[5] = byte(max(1, a.Interval/time.Second))
		if a.Password != "" {
			b[4] = passAuth
		}
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(a.Interval/(10*time.Millisecond))&0x0fff)
	}
	for _, addr := range a.Addrs {
		b = append(b, addr.AsSlice()...)
	}
	if a.Version == 2 { // always there, filled with zeros where nobody asks for it
		pass := make([]byte, passLen)
		copy(pass, a.Password)
		b = append(b, pass...)
	}
	binary.BigEndian.PutUint16(b[6:], a.checksum(b, src, dst))
	return b
}

// checksum is that of the packet b, whose own field is zero: of version 3 with
// the pseudo header of IP.
func (a Advert) checksum(b []byte, src, dst netip.Addr) uint16 {
	if a.Version == 2 {
		return sum(b)
	}
	return sum(append(pseudo(len(b), src, dst), b...))
}

func pseudo(length int, src, dst netip.Addr) []byte {
	h := append(src.AsSlice(), dst.AsSlice()...)
	h = append(h, 0, protocol)
	return binary.BigEndian.AppendUint16(h, uint16(length))
}

// sum is the internet checksum.
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// Errors of packets that say nothing.
var (
	errShort    = errors.New("cut short")
	errChecksum = errors.New("wrong checksum")
)

// Decode reads a packet from src to dst.
func Decode(b []byte, src, dst netip.Addr) (Advert, error) {
	if len(b) < 8 {
		return Advert{}, errShort
	}
	a := Advert{Version: int(b[0] >> 4), Router: b[1], Priority: b[2]}
	if b[0]&0xf != 1 || a.Version != 2 && a.Version != 3 {
		return a, fmt.Errorf("version %d, type %d: not known", a.Version, b[0]&0xf)
	}
	end := 8 + 4*int(b[3])
	want := end
	if a.Version == 2 {
		want += passLen
	}
	if len(b) < want {
		return a, errShort
	}
	b = b[:want]
	// Some speakers of version 3 leave the pseudo header out over IPv4.
	if sum(b) != 0 && (a.Version == 2 || sum(append(pseudo(len(b), src, dst), b...)) != 0) {
		return a, errChecksum
	}
	for i := 8; i < end; i += 4 {
		a.Addrs = append(a.Addrs, netip.AddrFrom4([4]byte(b[i:i+4])))
	}
	if a.Version == 3 {
		a.Interval = time.Duration(binary.BigEndian.Uint16(b[4:])&0x0fff) * 10 * time.Millisecond
		return a, nil
	}
	a.Interval = time.Duration(b[5]) * time.Second
	switch b[4] {
	case passAuth:
		a.Password = string(bytes.TrimRight(b[end:], "\x00"))
	case noAuth:
	default:
		return a, fmt.Errorf("authentication type %d: not known", b[4])
	}
	return a, nil
}

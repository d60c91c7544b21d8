package nodeipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// errFull is upstream's word for a used-up cluster range.
var errFull = errors.New("CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range")

// maxBits is how much longer a node's mask may be than the cluster's: upstream's.
const maxBits = 16

// pool parts one cluster range into ranges of nodes and remembers who holds
// each. A range that several nodes claim stays taken until all let go.
type pool struct {
	cluster netip.Prefix
	bits    int // length of a node's mask
	size    int
	next    int
	held    map[int]map[string]bool
}

func newPool(cluster netip.Prefix, bits int) (*pool, error) {
	cluster = cluster.Masked()
	switch {
	case !cluster.IsValid():
		return nil, errors.New("invalid cluster CIDR")
	case bits < cluster.Bits() || bits > cluster.Addr().BitLen():
		return nil, fmt.Errorf("node CIDR mask size %d does not fit cluster CIDR %s", bits, cluster)
	case bits-cluster.Bits() > maxBits:
		return nil, fmt.Errorf("new CIDR set failed; the node CIDR size is too big: cluster CIDR %s, node mask size %d", cluster, bits)
	}
	return &pool{cluster: cluster, bits: bits, size: 1 << (bits - cluster.Bits()), held: map[int]map[string]bool{}}, nil
}

// at returns the i-th range.
func (p *pool) at(i int) netip.Prefix {
	a := p.cluster.Addr().AsSlice()
	// i counts in units of the lowest bit of a node's mask.
	for bit := p.bits - 1; i > 0; bit, i = bit-1, i>>1 {
		if i&1 == 1 {
			a[bit/8] |= 1 << (7 - bit%8)
		}
	}
	addr, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(addr, p.bits)
}

// span returns the indexes of the node ranges that r touches; ok is false when
// it touches none.
func (p *pool) span(r netip.Prefix) (first, last int, ok bool) {
	r = r.Masked()
	if !r.Overlaps(p.cluster) {
		return 0, 0, false
	}
	if r.Bits() <= p.cluster.Bits() {
		return 0, p.size - 1, true
	}
	a := r.Addr().AsSlice()
	for bit := p.cluster.Bits(); bit < p.bits; bit++ {
		first = first<<1 | int(a[bit/8]>>(7-bit%8)&1)
	}
	last = first
	if r.Bits() < p.bits {
		last = first + 1<<(p.bits-r.Bits()) - 1
	}
	return first, last, true
}

// take hands out a free range to owner.
func (p *pool) take(owner string) (netip.Prefix, error) {
	for range p.size {
		i := p.next
		p.next = (p.next + 1) % p.size
		if len(p.held[i]) == 0 {
			p.held[i] = map[string]bool{owner: true}
			return p.at(i), nil
		}
	}
	return netip.Prefix{}, errFull
}

// occupy notes that owner holds r; it may be told so again and again.
func (p *pool) occupy(r netip.Prefix, owner string) {
	first, last, ok := p.span(r)
	for i := first; ok && i <= last; i++ {
		if p.held[i] == nil {
			p.held[i] = map[string]bool{}
		}
		p.held[i][owner] = true
	}
}

// release takes back what owner holds of r, and says whether anything is free by it.
func (p *pool) release(r netip.Prefix, owner string) bool {
	freed := false
	first, last, ok := p.span(r)
	for i := first; ok && i <= last; i++ {
		if !p.held[i][owner] {
			continue
		}
		if delete(p.held[i], owner); len(p.held[i]) == 0 {
			delete(p.held, i)
			freed = true
		}
	}
	return freed
}

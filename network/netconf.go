package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

// Backends of the overlay, by flannel's names.
const (
	VXLAN  = "vxlan"
	HostGW = "host-gw"
	UDP    = "udp"
)

// Backend says how packets reach another node's pods.
type Backend struct {
	Type          string
	VNI           int  // of VXLAN; 1 if 0
	Port          int  // of VXLAN (8472 if 0) or UDP (8285 if 0)
	MTU           int  // of pods; 0 takes the node link's, less what the backend adds to a packet
	DirectRouting bool // VXLAN: nodes on the same link are reached by routes alone
	Learning      bool // VXLAN: the kernel learns addresses from what arrives
	GBP           bool // VXLAN: carries group policies
}

func (b Backend) withDefaults() Backend {
	if b.Type == "" {
		b.Type = UDP
	}
	if b.VNI == 0 {
		b.VNI = 1
	}
	if b.Port == 0 {
		b.Port = 8472
		if b.Type == UDP {
			b.Port = 8285
		}
	}
	return b
}

// overhead is what the backend adds to a packet.
func (b Backend) overhead() int {
	switch b.Type {
	case VXLAN:
		return 50
	case UDP:
		return 28
	}
	return 0
}

func (b Backend) check() error {
	var errs []error
	switch b.Type {
	case VXLAN, HostGW, UDP:
	default:
		errs = append(errs, fmt.Errorf("network: backend %q: supported values: %q, %q, %q", b.Type, VXLAN, HostGW, UDP))
	}
	if b.VNI < 0 || b.VNI >= 1<<24 {
		errs = append(errs, fmt.Errorf("network: backend: VNI %d: must be between 1 and 16777215", b.VNI))
	}
	if b.Port < 0 || b.Port >= 1<<16 {
		errs = append(errs, fmt.Errorf("network: backend: Port %d: must be between 1 and 65535", b.Port))
	}
	if b.MTU != 0 && (b.MTU < 576 || b.MTU > 65535) {
		errs = append(errs, fmt.Errorf("network: backend: MTU %d: must be between 576 and 65535", b.MTU))
	}
	return errors.Join(errs...)
}

// NetConf is flannel's network configuration: the file net-conf.json, or the key
// PREFIX/config of etcd.
type NetConf struct {
	Network              netip.Prefix
	SubnetLen            int // of each node's range, when etcd gives them out
	SubnetMin, SubnetMax netip.Addr
	EnableNFTables       bool // accepted: rules are nftables' either way
	Backend              Backend
}

// ParseNetConf reads and checks a configuration, filling in what it leaves out.
func ParseNetConf(text []byte) (NetConf, error) {
	var raw struct {
		Network, SubnetMin, SubnetMax string
		SubnetLen                     int
		EnableIPv4                    *bool
		EnableIPv6, EnableNFTables    bool
		Backend                       json.RawMessage
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return NetConf{}, fmt.Errorf("network configuration: %w", err)
	}
	if raw.EnableIPv6 || raw.EnableIPv4 != nil && !*raw.EnableIPv4 {
		return NetConf{}, errors.New("network configuration: EnableIPv6: pods have IPv4 addresses here; leave it out, and EnableIPv4 at true")
	}
	c := NetConf{EnableNFTables: raw.EnableNFTables, SubnetLen: raw.SubnetLen}
	var err error
	if c.Network, err = netip.ParsePrefix(raw.Network); err != nil || !c.Network.Addr().Is4() {
		return NetConf{}, fmt.Errorf("network configuration: Network %q: not an IPv4 range", raw.Network)
	}
	c.Network = c.Network.Masked()
	if len(raw.Backend) > 0 {
		if err := json.Unmarshal(raw.Backend, &c.Backend); err != nil {
			return NetConf{}, fmt.Errorf("network configuration: Backend: %w", err)
		}
	}
	c.Backend = c.Backend.withDefaults()
	if err := c.Backend.check(); err != nil {
		return NetConf{}, err
	}
	return c, c.subnets(raw.SubnetMin, raw.SubnetMax)
}

// subnets settles which ranges may be given out, by flannel's rules: ranges of
// 256 addresses, or a quarter of a network that is smaller; the network's first
// is left out.
func (c *NetConf) subnets(least, most string) error {
	bits := c.Network.Bits()
	switch {
	case c.SubnetLen > 0:
		if c.SubnetLen > 30 {
			return errors.New("network configuration: SubnetLen must be less than /31")
		}
		if c.SubnetLen < bits+2 {
			return errors.New("network configuration: Network must be able to accommodate at least four subnets")
		}
	case bits > 28:
		return errors.New("network configuration: Network is too small. Minimum useful network prefix is /28")
	case bits <= 22:
		c.SubnetLen = 24
	default:
		c.SubnetLen = bits + 2
	}
	first, last := c.bounds()
	c.SubnetMin, c.SubnetMax = step(first, c.SubnetLen, 1), last
	for _, b := range []struct {
		name, text string
		to         *netip.Addr
	}{{"SubnetMin", least, &c.SubnetMin}, {"SubnetMax", most, &c.SubnetMax}} {
		if b.text == "" {
			continue
		}
		a, err := netip.ParseAddr(b.text)
		if err != nil || !c.Network.Contains(a) {
			return fmt.Errorf("network configuration: %s %q: not in the range of the Network", b.name, b.text)
		}
		if netip.PrefixFrom(a, c.SubnetLen).Masked().Addr() != a {
			return fmt.Errorf("network configuration: %s %q: not on a SubnetLen boundary", b.name, b.text)
		}
		*b.to = a
	}
	if c.SubnetMax.Less(c.SubnetMin) {
		return fmt.Errorf("network configuration: SubnetMax %s: less than SubnetMin %s", c.SubnetMax, c.SubnetMin)
	}
	return nil
}

// bounds returns the network's first and last range.
func (c *NetConf) bounds() (first, last netip.Addr) {
	first = c.Network.Addr()
	return first, step(first, c.SubnetLen, 1<<(c.SubnetLen-c.Network.Bits())-1)
}

// step is the n-th range of that length after addr.
func step(addr netip.Addr, length, n int) netip.Addr {
	b := addr.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n) << (32 - length)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

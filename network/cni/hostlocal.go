package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
)

// hostLocalDir is where upstream's host-local keeps addresses: one directory a
// network, one file an address, so that either program goes on from the other.
const hostLocalDir = "/var/lib/cni/networks"

// ipRange is one range of addresses.
type ipRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart,omitempty"`
	RangeEnd   string `json:"rangeEnd,omitempty"`
	Gateway    string `json:"gateway,omitempty"`

	subnet                netip.Prefix
	first, last, entrance netip.Addr
}

// ipamConf is the part of a configuration that is host-local's.
type ipamConf struct {
	ipRange                // the older way: one range
	Type       string      `json:"type"`
	Ranges     [][]ipRange `json:"ranges,omitempty"`
	Routes     []*types.Route
	DataDir    string `json:"dataDir,omitempty"`
	ResolvConf string `json:"resolvConf,omitempty"`
}

type hostLocalConf struct {
	types.NetConf
	IPAM ipamConf `json:"ipam"`
}

func parseHostLocal(data []byte) (*hostLocalConf, error) {
	c := &hostLocalConf{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "network configuration is not valid JSON", err.Error())
	}
	if c.IPAM.DataDir == "" {
		c.IPAM.DataDir = hostLocalDir
	}
	if c.IPAM.Subnet != "" {
		c.IPAM.Ranges = append([][]ipRange{{c.IPAM.ipRange}}, c.IPAM.Ranges...)
	}
	if len(c.IPAM.Ranges) == 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "no IP ranges specified", "")
	}
	if len(c.IPAM.Ranges) > 1 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "ipam: ranges: one set of IPv4 ranges is supported", "")
	}
	if c.Name == "" || filepath.Base(c.Name) != c.Name || strings.HasPrefix(c.Name, ".") {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("name %q: not a network's name", c.Name), "")
	}
	for i := range c.IPAM.Ranges[0] {
		if err := c.IPAM.Ranges[0][i].settle(); err != nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
		}
	}
	return c, nil
}

// settle fills in what a range leaves out: all its addresses but the network's
// and the broadcast's, the first being the gateway.
func (r *ipRange) settle() error {
	p, err := netip.ParsePrefix(r.Subnet)
	if err != nil || !p.Addr().Is4() {
		return fmt.Errorf("subnet %q is not an IPv4 range", r.Subnet)
	}
	if p.Bits() > 30 {
		return fmt.Errorf("network %s too small to allocate from", r.Subnet)
	}
	r.subnet = p.Masked()
	r.first, r.last, r.entrance = r.subnet.Addr().Next(), broadcast(r.subnet).Prev(), r.subnet.Addr().Next()
	for _, f := range []struct {
		name, text string
		to         *netip.Addr
	}{{"rangeStart", r.RangeStart, &r.first}, {"rangeEnd", r.RangeEnd, &r.last}, {"gateway", r.Gateway, &r.entrance}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = netip.ParseAddr(f.text); err != nil || f.name != "gateway" && !r.subnet.Contains(*f.to) {
			return fmt.Errorf("%s %q: not an address of %s", f.name, f.text, r.Subnet)
		}
	}
	return nil
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// addressBook is one network's addresses, held under a file lock.
type addressBook struct {
	dir  string
	lock *os.File
}

func (c *hostLocalConf) open() (*addressBook, error) {
	b := &addressBook{dir: filepath.Join(c.IPAM.DataDir, c.Name)}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if b.lock, err = os.OpenFile(filepath.Join(b.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(b.lock.Fd()), unix.LOCK_EX); err != nil {
		b.lock.Close()
		return nil, fmt.Errorf("lock %s: %w", b.lock.Name(), err)
	}
	return b, nil
}

func (b *addressBook) close() { b.lock.Close() }

// owner is what upstream writes into an address's file.
func owner(container, ifname string) string { return strings.TrimSpace(container) + "\r\n" + ifname }

// held returns the addresses of an owner; each is a file's name.
func (b *addressBook) held(who string) ([]netip.Addr, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(b.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(text)) == who {
			out = append(out, a)
		}
	}
	return out, nil
}

// take gives out the next free address after the last one.
func (b *addressBook) take(set []ipRange, who string) (netip.Addr, *ipRange, error) {
	var last netip.Addr
	if text, err := os.ReadFile(filepath.Join(b.dir, "last_reserved_ip.0")); err == nil {
		last, _ = netip.ParseAddr(strings.TrimSpace(string(text)))
	}
	at := 0
	for i, r := range set {
		if last.IsValid() && r.subnet.Contains(last) {
			at = i
		}
	}
	for n := range len(set) + 1 { // the range of the last one comes again at the end, from its start
		r := &set[(at+n)%len(set)]
		from := r.first
		if n == 0 && last.IsValid() && r.subnet.Contains(last) && !last.Less(r.first) {
			from = last.Next()
		}
		for a := from; r.subnet.Contains(a) && !r.last.Less(a); a = a.Next() {
			if a == r.entrance {
				continue
			}
			f, err := os.OpenFile(filepath.Join(b.dir, a.String()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if errors.Is(err, os.ErrExist) {
				continue
			}
			if err != nil {
				return a, nil, err
			}
			_, err = f.WriteString(who)
			if err := errors.Join(err, f.Close()); err != nil {
				return a, nil, errors.Join(err, os.Remove(f.Name()))
			}
			return a, r, os.WriteFile(filepath.Join(b.dir, "last_reserved_ip.0"), []byte(a.String()), 0o644)
		}
	}
	return netip.Addr{}, nil, fmt.Errorf("no IP addresses available in range set: %s-%s", set[0].first, set[len(set)-1].last)
}

// allocate gives a container's interface an address.
func (c *hostLocalConf) allocate(container, ifname string) (*current.Result, error) {
	b, err := c.open()
	if err != nil {
		return nil, err
	}
	defer b.close()
	who := owner(container, ifname)
	have, err := b.held(who)
	if err != nil {
		return nil, err
	}
	if len(have) > 0 {
		return nil, fmt.Errorf("failed to allocate for range 0: %s has been allocated to %s, duplicate allocation is not allowed", have[0], container)
	}
	a, r, err := b.take(c.IPAM.Ranges[0], who)
	if err != nil {
		return nil, fmt.Errorf("failed to allocate for range 0: %w", err)
	}
	res := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.IPAM.Routes, DNS: resolver(c.IPAM.ResolvConf)}
	res.IPs = []*current.IPConfig{{Address: *ipNet(netip.PrefixFrom(a, r.subnet.Bits())), Gateway: net.IP(r.entrance.AsSlice())}}
	return res, nil
}

// resolver reads a resolv.conf for the result; "" is none.
func resolver(path string) (dns types.DNS) {
	text, err := os.ReadFile(path)
	if path == "" || err != nil {
		return dns
	}
	for line := range strings.Lines(string(text)) {
		switch f := strings.Fields(line); {
		case len(f) < 2:
		case f[0] == "nameserver":
			dns.Nameservers = append(dns.Nameservers, f[1])
		case f[0] == "domain":
			dns.Domain = f[1]
		case f[0] == "search":
			dns.Search = append(dns.Search, f[1:]...)
		case f[0] == "options":
			dns.Options = append(dns.Options, f[1:]...)
		}
	}
	return dns
}

// release frees a container's addresses; one that has none is no error.
func (c *hostLocalConf) release(container, ifname string) error {
	b, err := c.open()
	if err != nil {
		return err
	}
	defer b.close()
	have, err := b.held(owner(container, ifname))
	if err != nil {
		return err
	}
	for _, a := range have {
		if err := os.Remove(filepath.Join(b.dir, a.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func hostLocalAdd(args *skel.CmdArgs) error {
	c, err := parseHostLocal(args.StdinData)
	if err != nil {
		return err
	}
	res, err := c.allocate(args.ContainerID, args.IfName)
	if err != nil {
		return err
	}
	return types.PrintResult(res, c.CNIVersion)
}

func hostLocalDel(args *skel.CmdArgs) error {
	c, err := parseHostLocal(args.StdinData)
	if err != nil {
		return err
	}
	return c.release(args.ContainerID, args.IfName)
}

func hostLocalCheck(args *skel.CmdArgs) error {
	c, err := parseHostLocal(args.StdinData)
	if err != nil {
		return err
	}
	b, err := c.open()
	if err != nil {
		return err
	}
	defer b.close()
	have, err := b.held(owner(args.ContainerID, args.IfName))
	if err == nil && len(have) == 0 {
		err = fmt.Errorf("host-local: Failed to find address added by container %s", args.ContainerID)
	}
	return err
}

// noStatus is of plugins that need nothing to work.
func noStatus(*skel.CmdArgs) error { return nil }

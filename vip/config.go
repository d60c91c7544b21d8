package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Config describes one virtual address. Fill starts with its defaults.
type Config struct {
	Address   netip.Prefix
	Interface string     // "" is the one that has Self
	Self      netip.Addr // this machine's own address

	Router    uint8 // the virtual router's id, the same on all machines
	Priority  uint8 // while ready; 1 to 254
	NoPreempt bool  // of higher priority, do not take the address from who is ready
	Version   int   // of VRRP: 2 or 3
	Interval  time.Duration
	Password  string       // of version 2
	Peers     []netip.Addr // instead of multicast
}

// Defaults is the configuration of an address that is not known yet.
func Defaults() Config {
	return Config{Router: 51, Priority: 100, Version: 3}
}

// On says whether there is an address to hold.
func (c *Config) On() bool { return c.Address.IsValid() }

// Flags adds the configuration's flags to fs.
func (c *Config) Flags(fs *pflag.FlagSet) {
	fs.Func("vip", "a virtual address, ADDR[/LEN][@INTERFACE], that one of the control planes holds, by VRRP", c.parse)
	fs.Uint8Var(&c.Router, "vip-router-id", c.Router, "the virtual router's id, 1 to 255, the same on all machines and nowhere else in their network")
	fs.Uint8Var(&c.Priority, "vip-priority", c.Priority, "this machine's priority for the virtual address while its API server is ready, 1 to 254; the highest holds it")
	fs.BoolVar(&c.NoPreempt, "vip-no-preempt", false, "leave the virtual address with a ready machine of lower priority")
	fs.IntVar(&c.Version, "vip-vrrp-version", c.Version, "the version of VRRP: 3, or 2 for neighbours that speak no other")
	fs.DurationVar(&c.Interval, "vip-interval", 0, "between adverts: from 10ms, with version 2 whole seconds (default 500ms, with version 2 1s)")
	fs.StringVar(&c.Password, "vip-password", "", "with --vip-vrrp-version 2: up to 8 characters that all machines know (keepalived's auth_type PASS)")
	fs.Func("vip-peers", "addresses of the other machines, to tell them instead of the multicast group", func(v string) error {
		for p := range strings.SplitSeq(v, ",") {
			a, err := netip.ParseAddr(strings.TrimSpace(p))
			if err != nil {
				return err
			}
			c.Peers = append(c.Peers, a)
		}
		return nil
	})
}

// parse reads ADDR[/LEN][@INTERFACE].
func (c *Config) parse(v string) (err error) {
	addr, iface, named := strings.Cut(v, "@")
	if named && iface == "" {
		return errors.New("no interface after @")
	}
	if strings.Contains(addr, "/") {
		c.Address, err = netip.ParsePrefix(addr)
	} else {
		var a netip.Addr
		if a, err = netip.ParseAddr(addr); err == nil {
			c.Address = netip.PrefixFrom(a, a.BitLen())
		}
	}
	c.Interface = iface
	return err
}

// Check fills in defaults and says what is wrong.
func (c *Config) Check() error {
	if !c.On() {
		return nil
	}
	if c.Interval == 0 {
		if c.Interval = 500 * time.Millisecond; c.Version == 2 {
			c.Interval = time.Second
		}
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !c.Address.Addr().Is4() || c.Address.Addr().IsLoopback() || c.Address.Addr().IsMulticast() {
		bad("--vip %s: want an IPv4 address that a machine may have", c.Address)
	}
	if c.Address.Addr() == c.Self {
		bad("--vip %s is this machine's own address", c.Address)
	}
	if c.Router == 0 {
		bad("--vip-router-id 0: want 1 to 255")
	}
	if c.Priority == 0 || c.Priority == 255 {
		bad("--vip-priority %d: want 1 to 254", c.Priority)
	}
	switch c.Version {
	case 2:
		if c.Interval%time.Second != 0 || c.Interval < time.Second || c.Interval > 255*time.Second {
			bad("--vip-interval %s: version 2 has whole seconds, 1 to 255", c.Interval)
		}
	case 3:
		if c.Interval%(10*time.Millisecond) != 0 || c.Interval < 10*time.Millisecond || c.Interval > 40950*time.Millisecond {
			bad("--vip-interval %s: want hundredths of a second, 10ms to 40.95s", c.Interval)
		}
		if c.Password != "" {
			bad("--vip-password: version 3 knows no passwords; use --vip-vrrp-version 2, or --vip-peers")
		}
	default:
		bad("--vip-vrrp-version %d: want 2 or 3", c.Version)
	}
	if len(c.Password) > passLen {
		bad("--vip-password: want at most %d characters", passLen)
	}
	if slices.Contains(c.Peers, c.Address.Addr()) {
		bad("--vip-peers: %s is the virtual address", c.Address.Addr())
	}
	c.Peers = slices.DeleteFunc(c.Peers, func(a netip.Addr) bool { return a == c.Self }) // one list may serve all machines
	return errors.Join(errs...)
}

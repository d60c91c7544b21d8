package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// leaseTTL is how long a range is a node's that tells nothing more, upstream's.
const leaseTTL = 24 * time.Hour

// subnetKey is a range's name in etcd: a key has no slash in it.
func subnetKey(p netip.Prefix) string { return strings.ReplaceAll(p.String(), "/", "-") }

func parseSubnetKey(key string) (netip.Prefix, error) {
	i := strings.LastIndexByte(key, '-')
	if i < 0 {
		return netip.Prefix{}, fmt.Errorf("subnet %q: not ADDRESS-LENGTH", key)
	}
	return netip.ParsePrefix(key[:i] + "/" + key[i+1:])
}

// holdings are the ranges that nodes hold.
type holdings map[netip.Prefix]lease

func readHoldings(pairs []pair) (h holdings, refused map[string]string) {
	h, refused = holdings{}, map[string]string{}
	for _, kv := range pairs {
		p, err := parseSubnetKey(kv.key)
		var l lease
		if err == nil {
			err = json.Unmarshal(kv.value, &l)
		}
		if err != nil {
			refused[kv.key] = err.Error()
			continue
		}
		h[p.Masked()] = l
	}
	return h, refused
}

// peers are the others' ranges.
func (h holdings) peers(own netip.Prefix, ours Backend, refused map[string]string) map[netip.Prefix]Peer {
	peers := map[netip.Prefix]Peer{}
	for pods, l := range h {
		if pods == own {
			continue
		}
		p, err := l.peer(l.PublicIP.String(), pods, ours)
		if err != nil {
			refused[l.PublicIP.String()] = err.Error()
			continue
		}
		peers[pods] = p
	}
	return peers
}

// choose returns the range a node takes: the one it holds, else the one it had
// before if that is free, else one of the first hundred free ones by chance, so
// that nodes that start at once do not all want the same.
func (h holdings) choose(c NetConf, public netip.Addr, before netip.Prefix, rng *rand.Rand) (p netip.Prefix, held bool, err error) {
	for p, l := range h {
		if l.PublicIP == public && c.has(p) {
			return p, true, nil
		}
	}
	overlaps := func(p netip.Prefix) bool {
		for taken := range h {
			if taken.Overlaps(p) {
				return true
			}
		}
		return false
	}
	if before.IsValid() && c.has(before) && !overlaps(before) {
		return before, false, nil
	}
	var free []netip.Prefix
	for a := c.SubnetMin; !c.SubnetMax.Less(a) && c.Network.Contains(a) && len(free) < 100; a = step(a, c.SubnetLen, 1) {
		if p := netip.PrefixFrom(a, c.SubnetLen); !overlaps(p) {
			free = append(free, p)
		}
	}
	if len(free) == 0 {
		return p, false, errors.New("out of subnets")
	}
	return free[rng.IntN(len(free))], false, nil
}

// has says whether a range is one that the configuration gives out.
func (c NetConf) has(p netip.Prefix) bool {
	return p.Bits() == c.SubnetLen && p.Masked() == p && !p.Addr().Less(c.SubnetMin) && !c.SubnetMax.Less(p.Addr())
}

// etcdSubnets is the node's range in etcd.
type etcdSubnets struct {
	registry registry
	margin   time.Duration // how long before its end a lease is renewed
	log      *slog.Logger

	conf    NetConf
	pods    netip.Prefix
	public  netip.Addr // whose it was written as
	said    string     // the lease as it was written
	renewAt time.Time  // when it is to be written again
}

// findRegistry returns the one of etcd's two APIs that has the configuration,
// waiting until one has.
func findRegistry(ctx context.Context, c *caller, log *slog.Logger) (registry, NetConf, error) {
	for first := true; ; first = false {
		var errs []error
		for _, r := range []registry{keys3{c}, keys2{c}} {
			text, err := r.get(ctx, "config")
			if err != nil {
				errs = append(errs, err)
				continue
			}
			conf, err := ParseNetConf(text)
			return r, conf, err
		}
		if first {
			log.Error("Couldn't fetch network config", "key", c.cfg.Prefix+"/config", "err", errors.Join(errs...))
		}
		if err := clock.Sleep(ctx, time.Second); err != nil {
			return nil, NetConf{}, err
		}
	}
}

// hold takes a range, or renews the lease of the one that is held. seen says
// whether etcd told of the lease as it was written.
func (s *etcdSubnets) hold(ctx context.Context, l lease, before netip.Prefix, seen bool) (netip.Prefix, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return netip.Prefix{}, err
	}
	if s.pods.IsValid() && seen && s.said == string(text) && clock.Now().Before(s.renewAt) {
		return s.pods, nil
	}
	rng := clock.Rand(clock.Seed())
	for range 10 {
		pairs, _, err := s.registry.list(ctx, "subnets")
		if err != nil {
			return netip.Prefix{}, err
		}
		all, _ := readHoldings(pairs)
		pods, held, err := all.choose(s.conf, l.PublicIP, before, rng)
		if now, there := all[s.pods]; s.pods.IsValid() && (!there || now.PublicIP == s.public) {
			pods, held, err = s.pods, there, nil // the node's address may be another: its pods' are not
		}
		if err != nil {
			return netip.Prefix{}, err
		}
		if err = s.registry.put(ctx, "subnets/"+subnetKey(pods), text, leaseTTL, !held); errors.Is(err, errTaken) {
			continue // somebody was quicker
		}
		if err != nil {
			return netip.Prefix{}, err
		}
		if s.pods != pods {
			s.log.Info("network: subnet lease", "subnet", pods.String(), "held", held)
		}
		s.pods, s.public, s.said, s.renewAt = pods, l.PublicIP, string(text), clock.Now().Add(leaseTTL-s.margin)
		return pods, nil
	}
	return netip.Prefix{}, errors.New("failed to acquire lease: max retries reached")
}

// watch tells of the leases now and at each change, until ctx ends.
func (s *etcdSubnets) watch(ctx context.Context, tell func([]pair)) error {
	for {
		pairs, at, err := s.registry.list(ctx, "subnets")
		if err == nil {
			tell(pairs)
			// A connection that died in silence is found by asking again.
			bounded, cancel := context.WithTimeout(ctx, again)
			err = s.registry.wait(bounded, "subnets", at)
			cancel()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.log.Debug("network: watch of subnets ended", "err", err)
			if err := clock.Sleep(ctx, time.Second); err != nil {
				return err
			}
		}
	}
}

package servicecidr

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

const managedBy = "ipallocator.k8s.io" // on addresses that the server hands out

func prefixes(c *networkingv1.ServiceCIDR) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// holding are the ranges, not being deleted or not, that contain an address.
func holding(all []*networkingv1.ServiceCIDR, a netip.Addr) []*networkingv1.ServiceCIDR {
	return slices.DeleteFunc(slices.Clone(all), func(c *networkingv1.ServiceCIDR) bool {
		return !slices.ContainsFunc(prefixes(c), func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// covered says whether another object's range contains p.
func covered(all []*networkingv1.ServiceCIDR, own string, p netip.Prefix) bool {
	return slices.ContainsFunc(all, func(c *networkingv1.ServiceCIDR) bool {
		return c.Name != own && slices.ContainsFunc(prefixes(c), func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	})
}

// free says whether a range may go: each of its prefixes lies in another's, or
// no address depends on it alone.
func free(c *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress) bool {
	if !slices.ContainsFunc(prefixes(c), func(p netip.Prefix) bool { return !covered(all, c.Name, p) }) {
		return true
	}
	for _, a := range addresses {
		ip, err := netip.ParseAddr(a.Name)
		if err != nil || a.Labels[networkingv1.LabelManagedBy] != managedBy {
			continue
		}
		if in := holding(all, ip); len(in) == 1 && in[0].Name == c.Name {
			return false
		}
	}
	return true
}

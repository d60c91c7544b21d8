package endpointslice

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/semantics/address"
)

// What a slice may hold at most.
const (
	maxEndpoints = 1000
	maxAddresses = 100
	maxPorts     = 20000
	maxTopology  = 16
	maxHints     = 8
)

func validate(next, prev *discoveryv1.EndpointSlice) (errs field.ErrorList) {
	errs = append(errs, validateAddressType(next.AddressType)...)
	errs = append(errs, validateEndpoints(next, prev, field.NewPath("endpoints"))...)
	errs = append(errs, validatePorts(next.Ports, field.NewPath("ports"))...)
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.AddressType, prev.AddressType, field.NewPath("addressType"))...)
	}
	return errs
}

func validateAddressType(t discoveryv1.AddressType) field.ErrorList {
	all := []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
	if t == "" {
		return field.ErrorList{field.Required(field.NewPath("addressType"), "")}
	}
	if !slices.Contains(all, t) {
		return field.ErrorList{field.NotSupported(field.NewPath("addressType"), t, all)}
	}
	return nil
}

func validateEndpoints(next, prev *discoveryv1.EndpointSlice, path *field.Path) (errs field.ErrorList) {
	if len(next.Endpoints) > maxEndpoints {
		return field.ErrorList{field.TooMany(path, len(next.Endpoints), maxEndpoints)}
	}
	var old []string
	if prev != nil {
		for _, e := range prev.Endpoints {
			old = append(old, e.Addresses...)
		}
	}
	for i := range next.Endpoints {
		e, at := &next.Endpoints[i], path.Index(i)
		errs = append(errs, validateAddresses(e.Addresses, next.AddressType, old, at.Child("addresses"))...)
		if e.NodeName != nil {
			for _, msg := range validation.IsDNS1123Subdomain(*e.NodeName) {
				errs = append(errs, field.Invalid(at.Child("nodeName"), *e.NodeName, msg))
			}
		}
		errs = append(errs, validateTopology(e.DeprecatedTopology, at.Child("deprecatedTopology"))...)
		if e.Hostname != nil {
			for _, msg := range validation.IsDNS1123Label(*e.Hostname) {
				errs = append(errs, field.Invalid(at.Child("hostname"), *e.Hostname, msg))
			}
		}
		if e.Hints != nil {
			errs = append(errs, validateHints(e.Hints, at.Child("hints"))...)
		}
	}
	return errs
}

func validateAddresses(addresses []string, kind discoveryv1.AddressType, old []string, path *field.Path) (errs field.ErrorList) {
	if len(addresses) == 0 {
		errs = append(errs, field.Required(path, "must contain at least 1 address"))
	} else if len(addresses) > maxAddresses {
		errs = append(errs, field.TooMany(path, len(addresses), maxAddresses))
	}
	for i, a := range addresses {
		at := path.Index(i)
		if kind == discoveryv1.AddressTypeFQDN {
			errs = append(errs, validation.IsFullyQualifiedDomainName(at, a)...)
			continue
		}
		if kind != discoveryv1.AddressTypeIPv4 && kind != discoveryv1.AddressTypeIPv6 {
			continue
		}
		if bad := validation.IsValidIPForLegacyField(at, a, false, old); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if kind == discoveryv1.AddressTypeIPv4 && !netutils.IsIPv4String(a) {
			errs = append(errs, field.Invalid(at, a, "must be an IPv4 address"))
		}
		if kind == discoveryv1.AddressTypeIPv6 && !netutils.IsIPv6String(a) {
			errs = append(errs, field.Invalid(at, a, "must be an IPv6 address"))
		}
		errs = append(errs, address.Ordinary(a, at)...)
	}
	return errs
}

func validateTopology(topology map[string]string, path *field.Path) (errs field.ErrorList) {
	if len(topology) > maxTopology {
		errs = append(errs, field.TooMany(path, len(topology), maxTopology))
	}
	errs = append(errs, metavalidation.ValidateLabels(topology, path)...)
	if _, ok := topology[corev1.LabelTopologyZone]; ok {
		errs = append(errs, field.Forbidden(path.Key(corev1.LabelTopologyZone), "reserved key; the zone has its own field"))
	}
	return errs
}

func validateHints(h *discoveryv1.EndpointHints, path *field.Path) (errs field.ErrorList) {
	zones, nodes := path.Child("forZones"), path.Child("forNodes")
	if len(h.ForZones) > maxHints {
		return field.ErrorList{field.TooMany(zones, len(h.ForZones), maxHints)}
	}
	if len(h.ForNodes) > maxHints {
		return field.ErrorList{field.TooMany(nodes, len(h.ForNodes), maxHints)}
	}
	seen := map[string]bool{}
	for i, z := range h.ForZones {
		at := zones.Index(i).Child("name")
		if seen[z.Name] {
			errs = append(errs, field.Duplicate(at, z.Name))
		}
		seen[z.Name] = true
		for _, msg := range validation.IsValidLabelValue(z.Name) {
			errs = append(errs, field.Invalid(at, z.Name, msg))
		}
	}
	clear(seen)
	for i, n := range h.ForNodes {
		at := nodes.Index(i).Child("name")
		if seen[n.Name] {
			errs = append(errs, field.Duplicate(at, n.Name))
		}
		seen[n.Name] = true
		for _, msg := range validation.IsDNS1123Subdomain(n.Name) {
			errs = append(errs, field.Invalid(at, n.Name, msg))
		}
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, path *field.Path) (errs field.ErrorList) {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxPorts)}
	}
	names := map[string]bool{}
	for i := range ports {
		p, at := &ports[i], path.Index(i)
		if name := *p.Name; name != "" {
			for _, msg := range validation.IsDNS1123Label(name) {
				errs = append(errs, field.Invalid(at.Child("name"), name, msg))
			}
		}
		if names[*p.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), *p.Name))
		}
		names[*p.Name] = true
		switch *p.Protocol {
		case "":
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		default:
			errs = append(errs, field.NotSupported(at.Child("protocol"), *p.Protocol,
				[]corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}))
		}
		if p.AppProtocol != nil {
			for _, msg := range validation.IsQualifiedName(*p.AppProtocol) {
				errs = append(errs, field.Invalid(at.Child("appProtocol"), *p.AppProtocol, msg))
			}
		}
	}
	return errs
}

// warnings speak of addresses in odd spellings.
func warnings(next, _ *discoveryv1.EndpointSlice) (out []string) {
	if next.AddressType == discoveryv1.AddressTypeFQDN {
		return []string{"addressType: FQDN endpoints are deprecated"}
	}
	for i, e := range next.Endpoints {
		for j, a := range e.Addresses {
			out = append(out, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), a)...)
		}
	}
	return out
}

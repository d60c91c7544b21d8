package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What resolvers of the C library bear.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

func (j *judge) dnsConfig(path *field.Path) {
	c := j.spec.DNSConfig
	if j.spec.DNSPolicy == corev1.DNSNone {
		if c == nil {
			j.add(field.Required(path, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone)))
			return
		}
		if len(c.Nameservers) == 0 {
			j.add(field.Required(path.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone)))
			return
		}
	}
	if c == nil {
		return
	}
	if len(c.Nameservers) > maxNameservers {
		j.add(field.Invalid(path.Child("nameservers"), c.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers)))
	}
	for i, ns := range c.Nameservers {
		j.legacyIP(path.Child("nameservers").Index(i), ns)
	}
	if len(c.Searches) > maxSearches {
		j.add(field.Invalid(path.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearches)))
	}
	if len(strings.Join(c.Searches, " ")) > maxSearchChars {
		j.add(field.Invalid(path.Child("searches"), c.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchChars)))
	}
	for i, search := range c.Searches {
		if search == "." {
			continue
		}
		search = strings.TrimSuffix(search, ".")
		j.say(path.Child("searches").Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search))
	}
	for i, o := range c.Options {
		if o.Name == "" {
			j.add(field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
}

// legacyIP accepts the sloppy spellings that fields of old always took.
func (j *judge) legacyIP(path *field.Path, ip string) {
	j.add(validation.IsValidIPForLegacyField(path, ip, false, nil)...)
}

func (j *judge) hostAliases(path *field.Path) {
	for i, a := range j.spec.HostAliases {
		j.legacyIP(path.Index(i).Child("ip"), a.IP)
		for k, name := range a.Hostnames {
			j.say(path.Index(i).Child("hostnames").Index(k), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

// hostNetworkPorts sees that ports on the host's network are what they are
// called. A template may leave host ports out: its pods get them by default.
func (j *judge) hostNetworkPorts(path *field.Path) {
	if !j.spec.HostNetwork {
		return
	}
	for i := range j.spec.Containers {
		for k, p := range j.spec.Containers[i].Ports {
			if (j.isPod() || p.HostPort != 0) && p.HostPort != p.ContainerPort {
				at := path.Child("containers").Index(i).Child("ports").Index(k).Child("hostPort")
				j.add(field.Invalid(at, p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
}

func (j *judge) ports(ports []corev1.ContainerPort, path *field.Path) {
	names := sets.New[string]()
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			if messages := validation.IsValidPortName(p.Name); len(messages) > 0 {
				j.say(at.Child("name"), p.Name, messages)
			} else if names.Has(p.Name) {
				j.add(field.Duplicate(at.Child("name"), p.Name))
			}
			names.Insert(p.Name)
		}
		if p.ContainerPort == 0 {
			j.required(at.Child("containerPort"))
		} else {
			j.say(at.Child("containerPort"), p.ContainerPort, validation.IsValidPortNum(int(p.ContainerPort)))
		}
		if p.HostPort != 0 {
			j.say(at.Child("hostPort"), p.HostPort, validation.IsValidPortNum(int(p.HostPort)))
		}
		mustBeOneOf(j, at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// hostPortConflicts finds host ports taken twice among containers that run at
// the same time.
func (j *judge) hostPortConflicts(containers []corev1.Container, path *field.Path) {
	taken := sets.New[string]()
	for i := range containers {
		for k, p := range containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			port := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if taken.Has(port) {
				j.add(field.Duplicate(path.Index(i).Child("ports").Index(k).Child("hostPort"), port))
			}
			taken.Insert(port)
		}
	}
}

package network

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// MAC is a hardware address that can be compared.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// tunnelMAC is the hardware address of a node's VXLAN link. It follows from the
// node's address, so that it is the same after a reboot.
func tunnelMAC(node netip.Addr) MAC {
	b := node.As4()
	return MAC{0x0e, 0x53, b[0], b[1], b[2], b[3]}
}

// Peer is another node: how its pods are reached.
type Peer struct {
	Name string // of the node, where that is known
	Node netip.Addr
	Pods netip.Prefix
	MAC  MAC // of its VXLAN link
}

// vxlanData is what a node tells others of its VXLAN link.
type vxlanData struct {
	VNI     int    `json:"VNI"`
	VtepMAC string `json:"VtepMAC"`
}

// lease is what a node tells others of itself, in etcd as this JSON.
type lease struct {
	PublicIP    netip.Addr
	BackendType string
	BackendData json.RawMessage `json:",omitempty"`
}

// leaseOf is this node's own.
func leaseOf(b Backend, public, local netip.Addr) lease {
	l := lease{PublicIP: public, BackendType: b.Type}
	if b.Type == VXLAN {
		l.BackendData, _ = json.Marshal(vxlanData{b.VNI, tunnelMAC(local).String()}) // a struct of a number and a text
	}
	return l
}

// peer reads a lease. Of another backend than ours it is no peer.
func (l lease) peer(name string, pods netip.Prefix, ours Backend) (Peer, error) {
	p := Peer{Name: name, Node: l.PublicIP, Pods: pods.Masked()}
	if !l.PublicIP.Is4() {
		return p, fmt.Errorf("public address %v: not IPv4", l.PublicIP)
	}
	if l.BackendType != ours.Type {
		return p, fmt.Errorf("backend %q, and ours is %q", l.BackendType, ours.Type)
	}
	if ours.Type != VXLAN {
		return p, nil
	}
	var d vxlanData
	if err := json.Unmarshal(l.BackendData, &d); err != nil {
		return p, fmt.Errorf("backend data: %w", err)
	}
	mac, err := net.ParseMAC(d.VtepMAC)
	if err != nil || len(mac) != len(p.MAC) {
		return p, fmt.Errorf("backend data: VtepMAC %q: not a hardware address", d.VtepMAC)
	}
	p.MAC = MAC(mac)
	return p, nil
}

// DefaultAnnotations is the prefix of flannel's annotations.
const DefaultAnnotations = "flannel.alpha.coreos.com"

// annotations names a node's annotations under a prefix.
type annotations string

// key is the annotation's whole name; a prefix may bring its own separator.
func (a annotations) key(name string) string {
	p := string(a)
	if p == "" {
		p = DefaultAnnotations
	}
	switch {
	case !strings.Contains(p, "/"):
		p += "/"
	case !strings.HasSuffix(p, "/") && !strings.HasSuffix(p, "-"):
		p += "-"
	}
	return p + name
}

// write returns the annotations that tell of a lease.
func (a annotations) write(l lease) map[string]string {
	data := "null"
	if len(l.BackendData) > 0 {
		data = string(l.BackendData)
	}
	return map[string]string{
		a.key("backend-type"): l.BackendType, a.key("backend-data"): data,
		a.key("public-ip"): l.PublicIP.String(), a.key("kube-subnet-manager"): "true",
	}
}

// read returns what a node's annotations tell, if they do.
func (a annotations) read(n *corev1.Node) (lease, bool) {
	if n.Annotations[a.key("kube-subnet-manager")] != "true" {
		return lease{}, false
	}
	ip, err := netip.ParseAddr(n.Annotations[a.key("public-ip")])
	if err != nil {
		return lease{}, false
	}
	return lease{ip, n.Annotations[a.key("backend-type")], json.RawMessage(n.Annotations[a.key("backend-data")])}, true
}

// Peers reads the other nodes' ranges from Node objects. Nodes without an
// address or a range, and this node, are left out; refused says why another was.
// With guess a node that tells nothing is taken to be like this one.
func (a annotations) Peers(nodes []*corev1.Node, self string, ours Backend, guess bool) (peers map[netip.Prefix]Peer, refused map[string]string) {
	peers, refused = map[netip.Prefix]Peer{}, map[string]string{}
	for _, n := range nodes {
		pods, err := netip.ParsePrefix(n.Spec.PodCIDR)
		if n.Name == self || err != nil || !pods.Addr().Is4() {
			continue
		}
		l, told := a.read(n)
		if !told {
			addr, ok := InternalIP(n)
			if !guess || !ok {
				continue
			}
			l = leaseOf(ours, addr, addr)
		}
		p, err := l.peer(n.Name, pods, ours)
		if err != nil {
			refused[n.Name] = err.Error()
			continue
		}
		peers[p.Pods] = p
	}
	return peers, refused
}

// InternalIP returns a node's first internal IPv4 address.
func InternalIP(n *corev1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() && a.Type == corev1.NodeInternalIP {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

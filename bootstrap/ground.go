package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/pki"
)

// ground is what all machines of a cluster must have alike, and who began it.
// A server that joins takes it from the cluster, and remembers it.
type ground struct {
	// Kubeadm began the cluster: its nodes' network and proxy are DaemonSets, and
	// its add-ons kubeadm's.
	Kubeadm       bool   `json:"kubeadm,omitempty"`
	Endpoint      string `json:"controlPlaneEndpoint,omitempty"` // host:port
	PodSubnet     string `json:"podSubnet,omitempty"`
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
	Backend       string `json:"backend,omitempty"` // of the network between nodes
}

// Where a cluster that a server began says so, and kubeadm's place for the same.
const (
	groundMap  = "sampan-cluster"
	groundKey  = "cluster.json"
	kubeadmMap = "kubeadm-config"
	kubeletMap = "kubelet-config"
)

// ground is that of the cluster that this server begins.
func (s *session) ground() ground {
	return ground{Endpoint: s.endpoint(), PodSubnet: s.ClusterCIDR.String(), ServiceSubnet: s.ServiceCIDR.String(), DNSDomain: s.ClusterDomain, Backend: s.NetworkBackend}
}

// endpoint is where machines that kubeadm manages reach the API: an address that
// outlives each control plane, if there is one.
func (s *session) endpoint() string {
	switch {
	case s.known.Endpoint != "":
		return s.known.Endpoint
	case s.PublicEndpoint != "":
		return s.PublicEndpoint
	case s.VIP.On():
		return address(s.VIP.Address.Addr(), s.Port)
	}
	return address(s.NodeIP, s.Port)
}

// recall is what this machine has learnt before.
func (s *session) recall(context.Context) error {
	text, err := os.ReadFile(s.path(groundKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.known)
	}
	if err != nil {
		return &final{fmt.Errorf("what is known of the cluster: %w", err)}
	}
	return s.adopt()
}

// learn finds out what the cluster that is joined is like, once: later starts
// must not depend on anybody to ask.
func (s *session) learn(ctx context.Context) error {
	if _, err := os.Stat(s.path(groundKey)); err == nil {
		return s.recall(ctx)
	}
	boot, err := s.bootClient(ctx)
	if err != nil {
		return err
	}
	found, err := askGround(ctx, boot)
	if err != nil || found == nil {
		return err
	}
	s.known = *found
	if err := s.adopt(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(s.path(groundKey), append(text, '\n'), 0o644)
}

// askGround reads it; nil if the cluster does not say, or not to us.
func askGround(ctx context.Context, c client.Interface) (*ground, error) {
	maps := client.Of[corev1.ConfigMap](c, metav1.NamespaceSystem)
	unsaid := func(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) }
	m, err := maps.Get(ctx, groundMap)
	if err == nil {
		g := &ground{}
		return g, json.Unmarshal([]byte(m.Data[groundKey]), g)
	}
	if !unsaid(err) {
		return nil, fmt.Errorf("ConfigMap kube-system/%s: %w", groundMap, err)
	}
	if m, err = maps.Get(ctx, kubeadmMap); err != nil {
		if unsaid(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("ConfigMap kube-system/%s: %w", kubeadmMap, err)
	}
	var cluster struct {
		ControlPlaneEndpoint string `json:"controlPlaneEndpoint"`
		Networking           struct {
			PodSubnet     string `json:"podSubnet"`
			ServiceSubnet string `json:"serviceSubnet"`
			DNSDomain     string `json:"dnsDomain"`
		} `json:"networking"`
	}
	if err := yaml.Unmarshal([]byte(m.Data["ClusterConfiguration"]), &cluster); err != nil {
		return nil, fmt.Errorf("ConfigMap kube-system/%s: %w", kubeadmMap, err)
	}
	n := cluster.Networking
	return &ground{Kubeadm: true, Endpoint: cluster.ControlPlaneEndpoint, PodSubnet: n.PodSubnet, ServiceSubnet: n.ServiceSubnet, DNSDomain: n.DNSDomain}, nil
}

// adopt makes the configuration fit what is known. What the user says otherwise
// is refused: such a machine would be of no use in the cluster.
func (s *session) adopt() error {
	def, g := Defaults(), s.known
	var errs []error
	subnet := func(flag string, mine *netip.Prefix, def netip.Prefix, theirs string) {
		theirs, _, _ = strings.Cut(theirs, ",")
		p, err := netip.ParsePrefix(theirs)
		switch {
		case theirs == "" || err == nil && p == *mine:
		case err != nil:
			errs = append(errs, fmt.Errorf("the cluster's %s: %w", flag, err))
		case *mine != def:
			errs = append(errs, fmt.Errorf("%s %s: the cluster's is %s", flag, *mine, p))
		default:
			*mine = p
		}
	}
	tenth := s.ServiceCIDR.Contains(s.ClusterDNS) && s.ClusterDNS == def.ClusterDNS
	subnet("--cluster-cidr", &s.ClusterCIDR, def.ClusterCIDR, g.PodSubnet)
	subnet("--service-cluster-ip-range", &s.ServiceCIDR, def.ServiceCIDR, g.ServiceSubnet)
	if tenth {
		s.ClusterDNS = dnsAddress(s.ServiceCIDR)
	}
	if g.DNSDomain != "" && g.DNSDomain != s.ClusterDomain {
		if s.ClusterDomain != def.ClusterDomain {
			errs = append(errs, fmt.Errorf("--cluster-domain %s: the cluster's is %s", s.ClusterDomain, g.DNSDomain))
		}
		s.ClusterDomain = g.DNSDomain
	}
	if s.NetworkBackend == "" {
		s.NetworkBackend = g.Backend
	}
	if g.Kubeadm {
		s.BalancerPort = 0 // its endpoint is everybody's way to the API
		if !s.ControlPlane && g.Endpoint != "" {
			s.Join = "https://" + g.Endpoint
		}
		if s.NetworkBackend == "" {
			s.NetworkBackend = "none"
		}
	}
	if err := errors.Join(errs...); err != nil {
		return &final{err}
	}
	return nil
}

// dnsAddress is the tenth of the services' range, kubeadm's choice for DNS.
func dnsAddress(services netip.Prefix) netip.Addr {
	a := services.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// nodesOf are the groups of machines that join and of those that have.
func nodesOf(groups ...string) (out []rbacv1.Subject) {
	for _, g := range groups {
		out = append(out, rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: g})
	}
	return out
}

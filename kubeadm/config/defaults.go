package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The defaults, as upstream's.
const (
	DefaultServiceSubnet   = "10.96.0.0/12"
	DefaultDNSDomain       = "cluster.local"
	DefaultBindPort        = 6443
	DefaultCertificatesDir = "/etc/kubernetes/pki"
	DefaultImageRepository = "registry.k8s.io"
	DefaultClusterName     = "kubernetes"
	DefaultEtcdDir         = "/var/lib/etcd"
	DefaultTokenTTL        = 24 * time.Hour
	DefaultNodeGroup       = "system:bootstrappers:kubeadm:default-node-token"
	DefaultCAPath          = "/etc/kubernetes/pki/ca.crt"
)

// Host is what defaults are taken from: this machine.
type Host struct {
	Name      string     // its host name
	Addr      netip.Addr // its address towards the default route
	CRISocket string     // the runtime that was found
}

// ControlPlaneTaint keeps ordinary pods off control planes.
func ControlPlaneTaint() corev1.Taint {
	return corev1.Taint{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}
}

// Default fills in what an InitConfiguration leaves out.
func (c *Init) Default(h Host) {
	c.NodeRegistration.fill(h, true)
	c.LocalAPIEndpoint.fill(h)
	for i := range c.BootstrapTokens {
		c.BootstrapTokens[i].fill()
	}
	if c.Timeouts == nil {
		c.Timeouts = &Timeouts{}
	}
	c.Timeouts.fill()
}

// Default fills in what a ClusterConfiguration leaves out; version is this
// program's.
func (c *Cluster) Default(version string) {
	set(&c.Networking.ServiceSubnet, DefaultServiceSubnet)
	set(&c.Networking.DNSDomain, DefaultDNSDomain)
	set(&c.CertificatesDir, DefaultCertificatesDir)
	set(&c.ImageRepository, DefaultImageRepository)
	set(&c.ClusterName, DefaultClusterName)
	set(&c.EncryptionAlgorithm, "RSA-2048")
	set(&c.KubernetesVersion, version)
	if !strings.HasPrefix(c.KubernetesVersion, "v") && c.KubernetesVersion[0] >= '0' && c.KubernetesVersion[0] <= '9' {
		c.KubernetesVersion = "v" + c.KubernetesVersion
	}
	if c.Etcd.External == nil {
		if c.Etcd.Local == nil {
			c.Etcd.Local = &LocalEtcd{}
		}
		set(&c.Etcd.Local.DataDir, DefaultEtcdDir)
	}
	if c.CertificateValidityPeriod == nil {
		c.CertificateValidityPeriod = &metav1.Duration{Duration: 365 * 24 * time.Hour}
	}
	if c.CACertificateValidityPeriod == nil {
		c.CACertificateValidityPeriod = &metav1.Duration{Duration: 10 * 365 * 24 * time.Hour}
	}
}

// Default fills in what a JoinConfiguration leaves out.
func (c *Join) Default(h Host) {
	c.NodeRegistration.fill(h, c.ControlPlane != nil)
	set(&c.CACertPath, DefaultCAPath)
	if c.ControlPlane != nil {
		c.ControlPlane.LocalAPIEndpoint.fill(h)
	}
	d := &c.Discovery
	if d.TLSBootstrapToken == "" && d.BootstrapToken != nil {
		d.TLSBootstrapToken = d.BootstrapToken.Token
	}
	if d.BootstrapToken != nil && d.BootstrapToken.Token == "" {
		d.BootstrapToken.Token = d.TLSBootstrapToken
	}
	if c.Timeouts == nil {
		c.Timeouts = &Timeouts{}
	}
	c.Timeouts.fill()
}

// Default fills in what a ResetConfiguration leaves out.
func (c *Reset) Default(h Host) {
	set(&c.CertificatesDir, DefaultCertificatesDir)
	set(&c.CRISocket, h.CRISocket)
}

// UnmountFlags are the flags of umount2 that a ResetConfiguration may name.
var UnmountFlags = map[string]int{"MNT_FORCE": 1, "MNT_DETACH": 2, "MNT_EXPIRE": 4, "UMOUNT_NOFOLLOW": 8}

// Default fills in what an UpgradeConfiguration leaves out.
func (c *Upgrade) Default() {
	for _, n := range []*UpgradeNode{&c.Node, &c.Apply.UpgradeNode} {
		yes(&n.CertificateRenewal)
		yes(&n.EtcdUpgrade)
		if n.ImagePullPolicy == "" {
			n.ImagePullPolicy = corev1.PullIfNotPresent
		}
	}
	if c.Diff.ContextLines == nil {
		three := 3
		c.Diff.ContextLines = &three
	}
	if c.Timeouts == nil {
		c.Timeouts = &Timeouts{}
	}
	c.Timeouts.fill()
}

func yes(b **bool) {
	if *b == nil {
		t := true
		*b = &t
	}
}

func (n *NodeRegistration) fill(h Host, controlPlane bool) {
	set(&n.Name, h.Name)
	n.Name = strings.ToLower(strings.TrimSpace(n.Name))
	set(&n.CRISocket, h.CRISocket)
	if strings.HasPrefix(n.CRISocket, "/") {
		n.CRISocket = "unix://" + n.CRISocket
	}
	if n.Taints == nil && controlPlane {
		n.Taints = []corev1.Taint{ControlPlaneTaint()}
	}
	if n.ImagePullPolicy == "" {
		n.ImagePullPolicy = corev1.PullIfNotPresent
	}
}

func (e *APIEndpoint) fill(h Host) {
	if e.AdvertiseAddress == "" && h.Addr.IsValid() {
		e.AdvertiseAddress = h.Addr.String()
	}
	if e.BindPort == 0 {
		e.BindPort = DefaultBindPort
	}
}

// HostPort is the endpoint as URLs write it.
func (e APIEndpoint) HostPort() string {
	return net.JoinHostPort(e.AdvertiseAddress, strconv.Itoa(int(e.BindPort)))
}

func (t *BootstrapToken) fill() {
	if t.TTL == nil && t.Expires == nil {
		t.TTL = &metav1.Duration{Duration: DefaultTokenTTL}
	}
	if len(t.Usages) == 0 {
		t.Usages = []string{"signing", "authentication"}
	}
	if len(t.Groups) == 0 {
		t.Groups = []string{DefaultNodeGroup}
	}
}

func (t *Timeouts) fill() {
	for _, d := range []struct {
		at   **metav1.Duration
		wait time.Duration
	}{
		{&t.ControlPlaneComponentHealthCheck, 4 * time.Minute}, {&t.KubeletHealthCheck, 4 * time.Minute},
		{&t.KubernetesAPICall, time.Minute}, {&t.EtcdAPICall, 2 * time.Minute}, {&t.TLSBootstrap, 5 * time.Minute},
		{&t.Discovery, 5 * time.Minute}, {&t.UpgradeManifests, 5 * time.Minute},
	} {
		if *d.at == nil {
			*d.at = &metav1.Duration{Duration: d.wait}
		}
	}
}

func set(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// Endpoint is where clients reach the API: the shared endpoint if there is one,
// else this control plane's own.
func (c *Cluster) Endpoint(local APIEndpoint) string {
	if c.ControlPlaneEndpoint == "" {
		return local.HostPort()
	}
	if _, _, err := net.SplitHostPort(c.ControlPlaneEndpoint); err != nil {
		return net.JoinHostPort(c.ControlPlaneEndpoint, strconv.Itoa(int(local.BindPort)))
	}
	return c.ControlPlaneEndpoint
}

// ServiceAddress is the n-th address of the service range: 1 is the API's own
// service, 10 is cluster DNS.
func (c *Cluster) ServiceAddress(n int) (netip.Addr, error) {
	first, _, _ := strings.Cut(c.Networking.ServiceSubnet, ",")
	p, err := netip.ParsePrefix(first)
	if err != nil {
		return netip.Addr{}, err
	}
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a, nil
}

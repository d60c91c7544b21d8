package bootstrap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/balance"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controlplane"
	"github.com/sampan-dev/sampan/kit/pki"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kit/trim"
	"github.com/sampan-dev/sampan/kubelet"
	kubeletconfig "github.com/sampan-dev/sampan/kubelet/config"
	"github.com/sampan-dev/sampan/kubelet/server"
	"github.com/sampan-dev/sampan/node"
	"github.com/sampan-dev/sampan/storage/etcd"
	"github.com/sampan-dev/sampan/vip"
)

// Serve runs one server until ctx ends: a control plane with its node, or a
// node alone.
func Serve(ctx context.Context, c Config, log *slog.Logger) error {
	trim.Keep(ctx)
	if err := c.Check(); err != nil {
		return err
	}
	s := &session{Config: c, log: log, metrics: prometheus.NewRegistry()}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	switch {
	case c.ForceNewCluster, c.RestoreSnapshot != "":
		return s.alone(ctx)
	case c.ControlPlane:
		return s.joinPlane(ctx)
	case c.Join != "":
		return s.join(ctx)
	}
	return s.serve(ctx)
}

// session is one run of a server.
type session struct {
	Config
	log     *slog.Logger
	metrics *prometheus.Registry
	pki     *PKI
	members string // of etcd, which this one joins: name=url,…
	known   ground // of a cluster that was joined

	balancer *balance.Balancer // nil for none
}

func (s *session) serve(ctx context.Context) error {
	if err := s.certificates(); err != nil {
		return err
	}
	cfg, err := s.controlPlane()
	if err != nil {
		return err
	}
	cp, err := controlplane.New(cfg, controlplane.Deps{Log: s.log, Metrics: s.metrics})
	if err != nil {
		return err
	}
	if s.several() && !s.NoNode && !s.known.Kubeadm {
		own := address(s.NodeIP, s.Port)
		if err := s.newBalancer(s.pki.CA.Pool(), own, own); err != nil {
			return err
		}
	}
	g := run.New(ctx)
	if s.balancer != nil {
		g.Go("balancer", s.balancer.Run)
	}
	if s.VIP.On() {
		v, err := vip.New(s.VIP, vip.Deps{Ready: ServerReady(s.pki.CA.Pool(), address(loopback, s.Port)), Metrics: s.metrics, Log: s.log})
		if err != nil {
			return err
		}
		g.Go("virtual address", v.Run)
	}
	if b := s.snapshots(cp.Etcd()); b != nil {
		g.Go("snapshots", b.Run)
	}
	g.Go("control plane", cp.Run)
	joinable := make(chan struct{}) // closed when nodes have the rights they need
	g.Go("objects", func(ctx context.Context) error { return s.objects(ctx, cp, joinable) })
	if !s.NoNode {
		g.Go("node", func(ctx context.Context) error {
			select {
			case <-joinable:
			case <-ctx.Done():
				return ctx.Err()
			}
			return s.node(ctx, cp.Client("system:node:"+s.NodeName, "system:nodes"), s.path("pki", "ca.crt"))
		})
	}
	return g.Wait()
}

// certificates makes the PKI and the administrator's kubeconfig.
func (s *session) certificates() error {
	hosts := append([]string{
		s.NodeName, s.NodeIP.String(), "localhost", "127.0.0.1", firstOf(s.ServiceCIDR).String(),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.ClusterDomain,
	}, s.TLSSANs...)
	if s.VIP.On() {
		hosts = append(hosts, s.VIP.Address.Addr().String())
	}
	if host, _, err := net.SplitHostPort(s.endpoint()); err == nil {
		hosts = append(hosts, host)
	}
	var err error
	if s.pki, err = EnsurePKI(s.path("pki"), hosts); err != nil {
		return err
	}
	return s.pki.EnsureAdmin(s.path("admin.conf"), "https://"+net.JoinHostPort(s.NodeIP.String(), strconv.Itoa(s.Port)))
}

// firstOf is the first usable address of a range: the API's own service's.
func firstOf(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

func (s *session) controlPlane() (controlplane.Config, error) {
	c := controlplane.Config{
		BindAddress: s.BindAddress, Port: s.Port, Advertise: s.NodeIP, Host: s.NodeName,
		ServiceCIDRs: []netip.Prefix{s.ServiceCIDR}, ClusterCIDR: s.ClusterCIDR, ClusterDomain: s.ClusterDomain,
		ClientCA: s.pki.CA, FrontProxyCA: s.pki.FrontProxyCA, AccountKey: s.pki.ServiceAccountSigner,
		Kubelet: keyPair(s.pki.KubeletClient), Anonymous: true, EnableAdmission: []string{"NodeRestriction"},
		Alone: len(s.EtcdServers) == 0 && !s.several(), EndpointRouting: true, Guard: s.Guard,
	}
	c.ProxyClient = func() (*tls.Certificate, error) {
		pair := keyPair(s.pki.FrontProxyClient)
		return &pair, nil
	}
	c.Serving = func() (*tls.Certificate, error) {
		cert := keyPair(s.pki.APIServer)
		return &cert, nil
	}
	if a := s.API; a != nil {
		c.Access, c.AuthorizationModes, c.TokenFile, c.Anonymous = a.Access, a.AuthorizationModes, a.TokenFile, a.Anonymous
		c.EnableAdmission, c.DisableAdmission, c.AdmissionConfig = append(c.EnableAdmission, a.EnableAdmission...), a.DisableAdmission, a.AdmissionConfig
	}
	var err error
	switch {
	case len(s.EtcdServers) > 0:
		c.EtcdServers, c.EtcdTLS = s.EtcdServers, etcd.TLS{Cert: s.EtcdCertFile, Key: s.EtcdKeyFile, CA: s.EtcdCAFile}
	case s.several():
		c.Etcd, err = s.stacked()
	default:
		c.Etcd = s.single()
	}
	return c, err
}

func keyPair(p *pki.Pair) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key, Leaf: p.Cert}
}

// objects makes what a cluster has beyond the control plane's own.
func (s *session) objects(ctx context.Context, cp *controlplane.ControlPlane, joinable chan<- struct{}) error {
	if err := cp.Ready(ctx); err != nil {
		return err
	}
	c := cp.Client("kubernetes-admin", "system:masters")
	// Where control planes come and go a write may fail, and be done later.
	again := func(fn func(context.Context) error) error {
		if !s.several() {
			return fn(ctx)
		}
		return patiently(ctx, forever, s.log, fn)
	}
	token := s.Token
	if s.ControlPlane { // it is the cluster's, and may have had its time
		token = ""
	}
	if err := again(func(ctx context.Context) error { return joinObjects(ctx, c, token) }); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	close(joinable)
	if !s.ControlPlane {
		if err := again(func(ctx context.Context) error { return errors.Join(s.groundwork(ctx, c), s.publish(ctx, c)) }); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	if s.CertificateKey != "" && s.ClusterInit {
		if err := again(func(ctx context.Context) error { return share(ctx, c, s.pki.Dir, s.CertificateKey) }); err != nil {
			return fmt.Errorf("bootstrap: share certificates: %w", err)
		}
	}
	if !s.NoNode {
		if err := again(func(ctx context.Context) error { return markControlPlane(ctx, c, s.NodeName) }); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	if s.known.Kubeadm {
		return nil // kubeadm's are there
	}
	err := again(func(ctx context.Context) error {
		return Addons{
			ClusterDomain: s.ClusterDomain, ClusterDNS: s.ClusterDNS.String(), Replicas: 1,
			Image: "registry.k8s.io/coredns/coredns:v1.15.0",
		}.Apply(ctx, c)
	})
	if err != nil {
		return err
	}
	return s.hosts(ctx, c)
}

// forever is longer than any server runs.
const forever = 100 * 365 * 24 * time.Hour

// join gets this node a certificate and runs it.
func (s *session) join(ctx context.Context) error {
	dir := s.path("kubelet-pki")
	ask := s.learn
	if _, err := pki.Load(dir, "kubelet-client"); err == nil { // it has joined, perhaps with a token that has ended
		ask = s.recall
	}
	if err := patiently(ctx, joinPatience, s.log, func(ctx context.Context) error {
		if err := s.trust(ctx); err != nil {
			return err
		}
		return ask(ctx)
	}); err != nil {
		return fmt.Errorf("join %s: %w", s.Join, err)
	}
	if err := s.joinedBalancer(); err != nil {
		return err
	}
	g := run.New(ctx)
	if s.balancer != nil {
		g.Go("balancer", s.balancer.Run)
	}
	g.Go("node", func(ctx context.Context) error {
		if err := s.listening(ctx); err != nil {
			return err
		}
		if err := ensureNodeCert(ctx, s.server(), s.Config, dir); err != nil {
			return err
		}
		cfg := s.server()
		cfg.CertFile, cfg.KeyFile, cfg.UserAgent = filepath.Join(dir, "kubelet-client.crt"), filepath.Join(dir, "kubelet-client.key"), "kubelet"
		c, err := client.New(cfg)
		if err != nil {
			return err
		}
		return s.node(ctx, c, s.CAFile)
	})
	return g.Wait()
}

// node runs this machine's node.
func (s *session) node(ctx context.Context, c client.Interface, caFile string) error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := node.Common{
		Name: s.NodeName, IP: s.NodeIP, ClusterCIDR: s.ClusterCIDR, ServiceCIDR: s.ServiceCIDR,
		ClusterDNS: s.ClusterDNS.String(), ClusterDomain: s.ClusterDomain, Version: api.Version().GitVersion,
	}.Config()
	cfg.Network.Backend = s.NetworkBackend
	cfg.Binary, cfg.Endpoint, cfg.Images = binary, s.Endpoint, s.ImportImages
	if len(s.ImportImages) > 0 {
		cfg.Registry, cfg.RegistryDir = s.Registry, s.path("registry")
	}
	k := &cfg.Kubelet
	k.Cgroups, k.OOMAdjust = true, !cfg.Runtime.RestrictOOMScoreAdj
	k.Capacity = s.capacity()
	if k.StaticPods = s.ManifestDir; s.ManifestDir != "" {
		if err := os.MkdirAll(s.ManifestDir, 0o755); err != nil {
			return fmt.Errorf("--pod-manifest-path: %w", err)
		}
	}
	component := kubeletconfig.Default()
	if s.EvictionHard != nil {
		component.EvictionHard = s.EvictionHard
	}
	if s.ImageGCHigh > 0 {
		component.ImageGCHighThresholdPercent = &s.ImageGCHigh
	}
	k.Component = &component
	k.Serve = &kubelet.Serve{Tokens: true, Config: server.Config{Port: k.Port, ClientCA: caFile, LogDir: "/var/log", Healthz: "127.0.0.1:10248"}}
	if cfg.Foreign = s.known.Kubeadm; !cfg.Foreign {
		k.Labels = map[string]string{builtIn: "true"}
	}
	mirrors := client.NewMirrors(c)
	deps := node.Deps{Client: c, Mirrors: mirrors, Log: s.log, Metrics: s.metrics}
	if s.balancer != nil {
		deps.Servers, cfg.Balancer = s.balancer.Set, netip.AddrPortFrom(s.NodeIP, uint16(s.BalancerPort))
	}
	n, err := node.New(cfg, deps)
	if err != nil {
		return err
	}
	g := run.New(ctx)
	g.Go("mirrors", mirrors.Run)
	g.Go("node", n.Run)
	return g.Wait()
}

// capacity is what the node claims to have, where the user says it.
func (s *session) capacity() corev1.ResourceList {
	out := corev1.ResourceList{}
	if s.CapacityCPU > 0 {
		out[corev1.ResourceCPU] = *resource.NewQuantity(int64(s.CapacityCPU), resource.DecimalSI)
	}
	if s.CapacityMemory > 0 {
		out[corev1.ResourceMemory] = *resource.NewQuantity(s.CapacityMemory, resource.BinarySI)
	}
	return out
}

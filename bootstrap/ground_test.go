package bootstrap

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client/fake"
)

func joining(t *testing.T, change func(*Config)) *session {
	t.Helper()
	s := &session{Config: Defaults(), log: slog.New(slog.DiscardHandler)}
	s.DataDir, s.NodeName, s.NodeIP, s.Join = t.TempDir(), "n", netip.MustParseAddr("192.0.2.9"), "https://192.0.2.1:6443"
	if change != nil {
		change(&s.Config)
	}
	return s
}

// Who joins takes the cluster's ranges, and refuses to be told others.
func TestWhoJoinsFitsTheCluster(t *testing.T) {
	kubeadm := ground{Kubeadm: true, Endpoint: "api.example:6443", PodSubnet: "10.32.0.0/16", ServiceSubnet: "10.50.0.0/16", DNSDomain: "ship.local"}
	s := joining(t, nil)
	s.known = kubeadm
	if err := s.adopt(); err != nil {
		t.Fatal(err)
	}
	if s.ClusterCIDR.String() != "10.32.0.0/16" || s.ServiceCIDR.String() != "10.50.0.0/16" || s.ClusterDNS.String() != "10.50.0.10" || s.ClusterDomain != "ship.local" {
		t.Errorf("adopted %s %s %s %s", s.ClusterCIDR, s.ServiceCIDR, s.ClusterDNS, s.ClusterDomain)
	}
	if s.BalancerPort != 0 || s.NetworkBackend != "none" || s.Join != "https://api.example:6443" || s.endpoint() != "api.example:6443" {
		t.Errorf("a cluster of kubeadm's: %d %q %s", s.BalancerPort, s.NetworkBackend, s.Join)
	}
	s = joining(t, func(c *Config) { c.ControlPlane, c.NetworkBackend = true, "host-gw" })
	if s.known = kubeadm; s.adopt() != nil || s.NetworkBackend != "host-gw" || s.Join != "https://192.0.2.1:6443" {
		t.Errorf("a control plane: %q %s", s.NetworkBackend, s.Join)
	}
	s = joining(t, nil)
	if s.known = (ground{PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12", Backend: "udp"}); s.adopt() != nil || s.BalancerPort == 0 || s.NetworkBackend != "udp" {
		t.Errorf("a cluster of servers: %d %q", s.BalancerPort, s.NetworkBackend)
	}
	s = joining(t, func(c *Config) {
		c.ServiceCIDR, c.ClusterDomain = netip.MustParsePrefix("10.99.0.0/16"), "other.local"
	})
	s.known = kubeadm
	err := s.adopt()
	for _, want := range []string{"--service-cluster-ip-range 10.99.0.0/16: the cluster's is 10.50.0.0/16", "--cluster-domain other.local: the cluster's is ship.local"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q", err, want)
		}
	}
}

// What the cluster is like is said by servers, or by kubeadm; what was learnt is
// remembered.
func TestGroundIsSaidAndRemembered(t *testing.T) {
	kubeadm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: kubeadmMap}, Data: map[string]string{
		"ClusterConfiguration": "controlPlaneEndpoint: api:6443\nnetworking:\n  dnsDomain: cluster.local\n  serviceSubnet: 10.96.0.0/12,fd00::/108\n"}}
	for name, c := range map[string]struct {
		there []api.Object
		want  *ground
	}{
		"nobody":  {nil, nil},
		"kubeadm": {[]api.Object{kubeadm}, &ground{Kubeadm: true, Endpoint: "api:6443", ServiceSubnet: "10.96.0.0/12,fd00::/108", DNSDomain: "cluster.local"}},
	} {
		got, err := askGround(t.Context(), fake.New(c.there...))
		if err != nil || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	there := fake.New(kubeadm)
	first := joining(t, func(c *Config) { c.Join, c.PublicEndpoint = "", "api.example:443" })
	for range 2 { // again changes nothing
		if err := first.groundwork(t.Context(), there); err != nil {
			t.Fatal(err)
		}
	}
	got, err := askGround(t.Context(), there)
	if err != nil || got == nil || *got != first.ground() || got.Endpoint != "api.example:443" {
		t.Errorf("a server's: %+v %v", got, err)
	}
	s := joining(t, nil)
	if err := s.recall(t.Context()); err != nil || s.known != (ground{}) {
		t.Errorf("nothing to remember: %+v %v", s.known, err)
	}
	if err := os.WriteFile(filepath.Join(s.DataDir, groundKey), []byte(`{"kubeadm": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.recall(t.Context()); err != nil || !s.known.Kubeadm {
		t.Errorf("remembered: %+v %v", s.known, err)
	}
}

// The manifests for nodes that kubeadm manages are whole, and keep away from
// servers' nodes.
func TestDaemonsAreForOthersNodes(t *testing.T) {
	there := fake.New()
	s := joining(t, nil)
	for range 2 {
		if err := s.daemons().Apply(t.Context(), there); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{proxyManifest, flannelManifest} {
		if !strings.Contains(text, builtIn) {
			t.Error("a manifest does not know the mark of servers' nodes")
		}
	}
	if s.NetworkBackend = "none"; s.daemons().Backend != "" {
		t.Error("a network of the user's own is not flannel's")
	}
}

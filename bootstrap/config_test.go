package bootstrap

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCheckHowAClusterIsJoined(t *testing.T) {
	const key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // "" is well
	}{
		{"one control plane", func(*Config) {}, ""},
		{"the first of several", func(c *Config) { c.ClusterInit, c.CertificateKey = true, key }, ""},
		{"another", func(c *Config) {
			c.Join, c.Token, c.CAFile, c.ControlPlane, c.CertificateKey = "https://x:6443", "abcdef.0123456789abcdef", "ca", true, key
		}, ""},
		{"by hash", func(c *Config) {
			c.Join, c.Token, c.CAHashes = "https://x:6443", "abcdef.0123456789abcdef", []string{"sha256:00"}
		}, ""},
		{"nothing to know the server by", func(c *Config) { c.Join, c.Token = "https://x:6443", "abcdef.0123456789abcdef" }, "--discovery-token-ca-cert-hash"},
		{"a control plane of nothing", func(c *Config) { c.ControlPlane = true }, "--control-plane needs --join"},
		{"first and joining", func(c *Config) {
			c.Join, c.Token, c.CAFile, c.ClusterInit = "https://x:6443", "abcdef.0123456789abcdef", "ca", true
		}, "--cluster-init"},
		{"a short key", func(c *Config) { c.ClusterInit, c.CertificateKey = true, "00" }, "64 hexadecimal digits"},
		{"a key for nobody", func(c *Config) { c.CertificateKey = key }, "--certificate-key needs"},
		{"alone and forced", func(c *Config) { c.ForceNewCluster = true }, "--force-new-cluster"},
		{"an endpoint", func(c *Config) { c.ClusterInit, c.PublicEndpoint = true, "api.example" }, ""},
		{"an endpoint of who joins", func(c *Config) {
			c.Join, c.Token, c.CAFile, c.PublicEndpoint = "https://x:6443", "abcdef.0123456789abcdef", "ca", "api.example"
		}, "--control-plane-endpoint"},
		{"no host", func(c *Config) { c.PublicEndpoint = ":6443" }, "--control-plane-endpoint :6443: want HOST"},
		{"snapshots", func(c *Config) { c.Snapshots.Directory, c.Snapshots.Interval, c.Snapshots.Keep = "/s", time.Hour, 3 }, ""},
		{"too many snapshots", func(c *Config) { c.Snapshots.Directory, c.Snapshots.Interval, c.Snapshots.Keep = "/s", 1, 3 }, "--etcd-snapshot-interval 1ns"},
		{"none kept", func(c *Config) { c.Snapshots.Directory, c.Snapshots.Interval = "/s", time.Hour }, "--etcd-snapshot-keep 0"},
		{"snapshots of another's etcd", func(c *Config) {
			c.Snapshots.Directory, c.Snapshots.Interval, c.Snapshots.Keep, c.EtcdServers = "/s", time.Hour, 3, []string{"https://e:2379"}
		}, "--etcd-snapshot-directory is for"},
		{"restored and forced", func(c *Config) { c.ClusterInit, c.ForceNewCluster, c.RestoreSnapshot = true, true, "f" }, "--restore-snapshot makes"},
		{"a node restored", func(c *Config) {
			c.Join, c.Token, c.CAFile, c.RestoreSnapshot = "https://x:6443", "abcdef.0123456789abcdef", "ca", "f"
		}, "--restore-snapshot is for"},
		{"another's etcd", func(c *Config) { c.ClusterInit, c.EtcdServers = true, []string{"https://e:2379"} }, "--etcd-servers"},
	} {
		cfg := Defaults()
		cfg.NodeName, cfg.NodeIP = "n", netip.MustParseAddr("192.0.2.1")
		c.change(&cfg)
		err := cfg.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

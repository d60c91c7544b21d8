package network

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigsThatCannotWork(t *testing.T) {
	good := Config{NodeName: "n", NodeIP: addr("100.64.0.2"), ClusterCIDR: prefix("10.244.0.0/16")}
	for want, change := range map[string]func(*Config){
		"":                               func(*Config) {},
		"node name: Required value":      func(c *Config) { c.NodeName = "" },
		"node address fd00::1: not IPv4": func(c *Config) { c.NodeIP = addr("fd00::1") },
		"cluster CIDR fd00::/64: not an": func(c *Config) { c.ClusterCIDR = prefix("fd00::/64") },
		`supported values: "vxlan", "host-gw", "udp", "none"`: func(c *Config) { c.Backend = "ipip" },
		"Port 70000: must be between":                         func(c *Config) { c.Port = 70000 },
		"VNI -1: must be between":                             func(c *Config) { c.VNI = -1 },
	} {
		c := good
		change(&c)
		_, err := New(c, Deps{Log: slog.New(slog.DiscardHandler)})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// With the backend none the configuration of a life before gives way to others'.
func TestNoBackendLeavesNothingInTheWay(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, confFile), filepath.Join(dir, "10-other.conflist")
	for _, f := range []string{ours, theirs} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		n, err := New(Config{NodeName: "n", NodeIP: addr("100.64.0.2"), ClusterCIDR: prefix("10.244.0.0/16"), Backend: None, CNIConfDir: dir}, Deps{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || left[0] != theirs {
		t.Errorf("left %q", left)
	}
}

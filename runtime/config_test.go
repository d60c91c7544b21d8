package runtime

import (
	"strings"
	"testing"
)

func example() Config {
	c := Defaults()
	c.Runc = "/usr/sbin/runc"
	c.RestrictOOMScoreAdj, c.DisableAppArmor = true, true
	return c
}

func TestRenderSaysWhatTheNodeNeeds(t *testing.T) {
	c := example()
	c.TestHandler = true
	c.Cgroup = "/runtime"
	got := render(c)
	for _, want := range []string{
		"version = 4\n",
		"[cgroup]\npath = \"/runtime\"\n",
		"[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/run/sampan/containerd/containerd.sock\"\n",
		"restrict_oom_score_adj = true\n",
		"disable_apparmor = true\n",
		"use_internal_loopback = true\n",
		"[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"registry.k8s.io/pause:3.10.2\"\n",
		"[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/sampan/certs.d\"\n",
		"runtimes.test-handler]\nruntime_type = \"io.containerd.runc.v2\"\n",
		"runtimes.runc.options]\nBinaryName = \"/usr/sbin/runc\"\n",
		"SystemdCgroup = false\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in:\n%s", want, got)
		}
	}
	if render(c) != got {
		t.Error("the same configuration gave two different files")
	}
}

func TestRenderLeavesOutWhatWasNotAsked(t *testing.T) {
	c := example()
	c.RegistryConfigDir = ""
	got := render(c)
	for _, unwanted := range []string{"test-handler", "config_path", "[cgroup]"} {
		if strings.Contains(got, unwanted) {
			t.Errorf("%q in:\n%s", unwanted, got)
		}
	}
}

func TestCheck(t *testing.T) {
	if err := example().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"containerd root":        func(c *Config) { c.Root = "relative" },
		"root and state":         func(c *Config) { c.State = c.Root },
		"too long for a socket":  func(c *Config) { c.Address = "/" + strings.Repeat("x", 120) },
		"sandbox image: not set": func(c *Config) { c.SandboxImage = "" },
		"containerd shim":        func(c *Config) { c.Shim = "" },
	} {
		c := example()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}

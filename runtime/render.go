package runtime

import (
	"fmt"
	"strconv"
	"strings"
)

// render writes containerd's configuration file. It is pure: the same Config
// gives the same bytes.
func render(c Config) string {
	var t toml
	t.set("version", 4)
	t.set("root", c.Root)
	t.set("state", c.State)
	t.table("debug")
	t.set("level", c.LogLevel)
	if c.Cgroup != "" {
		t.table("cgroup")
		t.set("path", c.Cgroup)
	}
	t.plugin("io.containerd.server.v1.grpc")
	t.set("address", c.Address)
	t.plugin("io.containerd.server.v1.ttrpc")
	t.set("address", c.Address+".ttrpc")
	// Nothing here asks for the node resource interface, and its socket would
	// be one more way in.
	t.plugin("io.containerd.nri.v1.nri")
	t.set("disable", true)
	renderImages(&t, c)
	renderRuntime(&t, c)
	return t.String()
}

func renderImages(t *toml, c Config) {
	const id = "io.containerd.cri.v1.images"
	t.plugin(id)
	t.set("snapshotter", c.Snapshotter)
	t.set("stats_collect_period", 30)
	t.plugin(id, "pinned_images")
	t.set("sandbox", c.SandboxImage)
	if c.RegistryConfigDir != "" {
		t.plugin(id, "registry")
		t.set("config_path", c.RegistryConfigDir)
	}
	t.plugin("io.containerd.transfer.v1.local")
	t.set("max_concurrent_downloads", 8)
	if c.RegistryConfigDir != "" {
		t.set("config_path", c.RegistryConfigDir)
	}
}

func renderRuntime(t *toml, c Config) {
	const id = "io.containerd.cri.v1.runtime"
	t.plugin(id)
	t.set("restrict_oom_score_adj", c.RestrictOOMScoreAdj)
	t.set("disable_apparmor", c.DisableAppArmor)
	t.set("max_container_log_line_size", 16*1024)
	t.set("enable_unprivileged_ports", true)
	t.set("enable_unprivileged_icmp", true)
	t.set("tolerate_missing_hugetlb_controller", true)
	t.set("cdi_spec_dirs", []string{"/etc/cdi", "/var/run/cdi"})
	// Once a second, the default, is most of an idle containerd's CPU time.
	t.set("stats_collect_period", "10s")
	t.plugin(id, "cni")
	t.set("bin_dirs", []string{c.CNIBinDir, "/opt/cni/bin"}) // of another network than ours
	t.set("conf_dir", c.CNIConfDir)
	t.set("use_internal_loopback", true)
	t.plugin(id, "containerd")
	t.set("default_runtime_name", "runc")
	handlers := []string{"runc"}
	if c.TestHandler {
		handlers = append(handlers, "test-handler")
	}
	for _, name := range handlers {
		t.plugin(id, "containerd", "runtimes", name)
		// No runtime_path: after a restart containerd looks the shim of every
		// container but a pod's first up by its type alone.
		t.set("runtime_type", "io.containerd.runc.v2")
		t.set("sandboxer", "podsandbox")
		t.plugin(id, "containerd", "runtimes", name, "options")
		t.set("BinaryName", c.Runc)
		t.set("ShimCgroup", c.ShimCgroup)
		t.set("SystemdCgroup", c.SystemdCgroup)
	}
}

// toml writes the few shapes of TOML that containerd's file needs.
type toml struct{ strings.Builder }

func (t *toml) table(keys ...string) {
	for i, k := range keys {
		if strings.ContainsAny(k, ".") {
			keys[i] = strconv.Quote(k)
		}
	}
	fmt.Fprintf(t, "\n[%s]\n", strings.Join(keys, "."))
}

func (t *toml) plugin(id string, keys ...string) {
	t.table(append([]string{"plugins", id}, keys...)...)
}

func (t *toml) set(key string, value any) {
	switch v := value.(type) {
	case string:
		fmt.Fprintf(t, "%s = %s\n", key, strconv.Quote(v))
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = strconv.Quote(s)
		}
		fmt.Fprintf(t, "%s = [%s]\n", key, strings.Join(quoted, ", "))
	default:
		fmt.Fprintf(t, "%s = %v\n", key, v)
	}
}

package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Config says where containerd lives and what it may rely on.
type Config struct {
	Root    string // persistent data: images, snapshots, metadata
	State   string // what need not survive a reboot
	Address string // the unix socket that speaks CRI and containerd's own API

	SandboxImage      string // the image whose one process holds a pod's namespaces
	Snapshotter       string // how layers are stacked
	Shim              string // absolute path of the shim, which runs once per pod
	Runc              string // the OCI runtime: a path, or a name on the PATH
	CNIBinDir         string // network plugins
	CNIConfDir        string // network configuration; the first file in it counts
	RegistryConfigDir string // HOST/hosts.toml for each registry with mirrors

	Cgroup     string // a cgroup for containerd itself; empty: the parent's
	ShimCgroup string // a cgroup for the shims; empty: containerd's
	// SystemdCgroup lets systemd make the containers' cgroups; otherwise they
	// are made directly. The kubelet must be told the same.
	SystemdCgroup bool

	// RestrictOOMScoreAdj keeps containers from a lower OOM score than
	// containerd's own, which needs CAP_SYS_RESOURCE.
	RestrictOOMScoreAdj bool
	DisableAppArmor     bool // the kernel has none
	TestHandler         bool // offer a second runtime class handler, `test-handler`

	LogLevel string   // containerd's: trace, debug, info, warn, error
	Command  []string // what to execute as containerd, before its flags; empty: the embedded one, beside the shim
}

// Defaults returns a configuration for this computer with all of a node's
// files under the usual paths.
func Defaults() Config {
	return Config{
		Root:                "/var/lib/sampan/containerd",
		State:               "/run/sampan/containerd",
		Address:             "/run/sampan/containerd/containerd.sock",
		SandboxImage:        "registry.k8s.io/pause:3.10.2",
		Snapshotter:         "overlayfs",
		Shim:                "/var/lib/sampan/bin/sampan-shim",
		Runc:                "runc",
		CNIBinDir:           "/var/lib/sampan/bin",
		CNIConfDir:          "/etc/cni/net.d",
		RegistryConfigDir:   "/etc/sampan/certs.d",
		RestrictOOMScoreAdj: !may(unix.CAP_SYS_RESOURCE),
		DisableAppArmor:     !apparmor(),
		LogLevel:            "warn",
	}
}

// Check says everything that is wrong with c.
func (c Config) Check() error {
	var errs []error
	for _, p := range []struct{ name, value string }{
		{"root", c.Root}, {"state", c.State}, {"address", c.Address}, {"shim", c.Shim},
		{"CNI plugin directory", c.CNIBinDir}, {"CNI configuration directory", c.CNIConfDir},
	} {
		if !filepath.IsAbs(p.value) {
			errs = append(errs, fmt.Errorf("containerd %s: %q is not an absolute path", p.name, p.value))
		}
	}
	if c.Root == c.State {
		errs = append(errs, fmt.Errorf("containerd root and state: both are %q", c.Root))
	}
	// The kernel's limit for a socket's path, less containerd's own suffix.
	if n := len(c.Address + ".ttrpc"); n > 107 {
		errs = append(errs, fmt.Errorf("containerd address: %q is too long for a socket", c.Address))
	}
	for _, p := range []struct{ name, value string }{
		{"sandbox image", c.SandboxImage}, {"snapshotter", c.Snapshotter}, {"runc", c.Runc},
	} {
		if p.value == "" {
			errs = append(errs, fmt.Errorf("containerd %s: not set", p.name))
		}
	}
	return errors.Join(errs...)
}

// configFile is where the rendered configuration is kept.
func (c Config) configFile() string { return filepath.Join(c.State, "config.toml") }

// may says whether this process has a capability.
func may(capability uint) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err == nil && bits&(1<<capability) != 0
		}
	}
	return false
}

// apparmor says whether the kernel enforces AppArmor profiles and the tool that
// loads them is there; containerd needs both.
func apparmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(enabled), "Y") {
		return false
	}
	_, err = os.Stat("/sbin/apparmor_parser")
	return err == nil
}

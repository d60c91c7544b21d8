package cli

import (
	"errors"
	"strings"
	"testing"
)

func fit() computer {
	c := computer{kernel: "6.1.0-18-amd64", filesystems: "nodev\toverlay\n", cgroups: true, free: 5 << 30, dir: "/var/lib/sampan", namespaces: map[string]bool{}}
	for _, ns := range namespaces {
		c.namespaces[ns] = true
	}
	return c
}

func TestWhatIsMissingIsNamedWithItsRemedy(t *testing.T) {
	if err := fit().missing(); err != nil {
		t.Errorf("a fit computer: %v", err)
	}
	for want, change := range map[string]func(*computer){
		"apt-get install runc":                    func(c *computer) { c.runc = errors.New("not found") },
		"Linux 5.13 or newer is needed":           func(c *computer) { c.kernel = "5.10.0-8-amd64" },
		"modprobe overlay":                        func(c *computer) { c.filesystems = "nodev\ttmpfs\n" },
		"no pid namespaces":                       func(c *computer) { c.namespaces["pid"] = false },
		"mount -t cgroup2":                        func(c *computer) { c.cgroups = false },
		"/var/lib/sampan has 100 MiB left, and a": func(c *computer) { c.free = 100 << 20 },
	} {
		c := fit()
		change(&c)
		if err := c.missing(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestKernelVersions(t *testing.T) {
	for release, want := range map[string]bool{"5.13": true, "5.13-rc1": true, "5.9.1": false, "4.19.0": false, "6.18.3+": true, "10.0": true, "odd": true, "x.y.z": true} {
		if got := atLeast(release, 5, 13); got != want {
			t.Errorf("%s: %v", release, got)
		}
	}
}

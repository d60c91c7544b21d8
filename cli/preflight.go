package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// computer is what a node needs of the computer it is made on, as far as it can
// be known beforehand.
type computer struct {
	kernel      string // its release
	filesystems string // /proc/filesystems
	namespaces  map[string]bool
	cgroups     bool
	runc        error
	free        uint64 // bytes where clusters are kept
	dir         string
}

// look describes this computer; dir is where clusters are kept.
func look(dir string) computer {
	c := computer{dir: dir, namespaces: map[string]bool{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		c.kernel = unix.ByteSliceToString(u.Release[:])
	}
	text, _ := os.ReadFile("/proc/filesystems")
	if !strings.Contains(string(text), "overlay") { // perhaps a module that nobody asked for yet
		_ = exec.Command("modprobe", "overlay").Run()
		text, _ = os.ReadFile("/proc/filesystems")
	}
	c.filesystems = string(text)
	for _, ns := range namespaces {
		_, err := os.Stat("/proc/self/ns/" + ns)
		c.namespaces[ns] = err == nil
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	c.cgroups = strings.Contains(string(mounts), " cgroup")
	_, c.runc = exec.LookPath("runc")
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		c.free = st.Bavail * uint64(st.Bsize)
	}
	return c
}

var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"}

// leastSpace is what a node's own images and an empty etcd take, with some room.
const leastSpace = 1 << 30

// missing says everything that keeps a node from starting, each with its remedy.
func (c computer) missing() error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.runc != nil {
		say("runc, which starts containers, is not installed: apt-get install runc")
	}
	if !atLeast(c.kernel, 5, 13) {
		say("the kernel is %s: Linux 5.13 or newer is needed; start the computer with a newer one", c.kernel)
	}
	if !strings.Contains(c.filesystems, "overlay") {
		say("the kernel has no overlay file system, on which images are laid: modprobe overlay")
	}
	for _, ns := range namespaces {
		if !c.namespaces[ns] {
			say("the kernel has no %s namespaces: use one built with CONFIG_NAMESPACES and its options", ns)
		}
	}
	if !c.cgroups {
		say("no cgroups are mounted: mount -t cgroup2 none /sys/fs/cgroup")
	}
	if c.free < leastSpace {
		say("%s has %d MiB left, and a node needs %d: make room there, or set SAMPAN_HOME to a directory on a larger disk", c.dir, c.free>>20, leastSpace>>20)
	}
	return errors.Join(errs...)
}

// atLeast compares a kernel's release, "6.1.0-18-amd64", with a version.
func atLeast(release string, major, minor int) bool {
	f := strings.SplitN(release, ".", 3)
	if len(f) < 2 {
		return true // of a form unknown here: let it try
	}
	a, err1 := strconv.Atoi(f[0])
	b, err2 := strconv.Atoi(strings.TrimRight(strings.SplitN(f[1], "-", 2)[0], "+"))
	if err1 != nil || err2 != nil {
		return true
	}
	return a > major || a == major && b >= minor
}

// preflight checks this computer before a node is made on it.
func preflight() error {
	dir := stateDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("%w; set SAMPAN_HOME to a directory that can be written to", err)
	}
	if err := look(dir).missing(); err != nil {
		return fmt.Errorf("this computer cannot run a node yet:\n%w", err)
	}
	return nil
}

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// persistent are the directories of which a machine has its own, kept while it
// is off. They lie on the disk itself: containers' own overlays cannot stand on
// an overlay.
var persistent = []string{"/etc", "/opt", "/var/lib", "/var/log"}

// machineWide are the settings that belong to the whole computer. Inside, a
// file stands in front of each: writing succeeds and changes nothing.
var machineWide = []string{
	"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	"kernel/core_pattern", "kernel/pid_max", "kernel/threads-max", "kernel/sysrq",
	"vm/overcommit_memory", "vm/panic_on_oom", "vm/max_map_count", "vm/swappiness", "vm/drop_caches",
}

// furnish makes the mounts of a machine, inside its new mount namespace. The
// computer's own root stays below, so that its programs are at hand.
func (m *Machine) furnish() error {
	// What was mounted before says which cgroup trees there are.
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("new cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(m.Spec.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"cut off", cutOff},
		{"proc and sys", kernelFilesystems},
		{"cgroups", func() error { return mountCgroups(trees) }},
		{"directories", m.mountDirectories},
		{"settings", hideSettings},
		{"names", m.writeNames},
		{"share", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("furnish: %s: %w", step.name, err)
		}
	}
	return nil
}

// cutOff keeps mounts made here from showing outside, and lets go of outside's
// named network namespaces, which would otherwise outlive their removal.
func cutOff() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	named, err := os.ReadDir(netnsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, ns := range named {
		_ = unix.Unmount(netnsPath(ns.Name()), unix.MNT_DETACH)
	}
	return nil
}

func kernelFilesystems() error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, f := range []struct {
		kind, at, data string
		flags          uintptr
		optional       bool
	}{
		{"proc", "/proc", "", safe, false},
		{"sysfs", "/sys", "", safe, false},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV, false},
		{"mqueue", "/dev/mqueue", "", safe, true},
		{"bpf", "/sys/fs/bpf", "mode=700", safe, true},
	} {
		err := unix.Mount(f.kind, f.at, f.kind, f.flags, f.data)
		if err != nil && !f.optional {
			return fmt.Errorf("mount %s: %w", f.at, err)
		}
	}
	return nil
}

// mountCgroups mounts the trees again, seen from the machine's own cgroups.
func mountCgroups(trees []hierarchy) error {
	const at, flags = "/sys/fs/cgroup", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if trees[0].V2 {
		if err := unix.Mount("cgroup2", at, "cgroup2", flags, "nsdelegate"); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
		return leaveRootCgroup(at)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", flags, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	for _, h := range trees {
		dir := filepath.Join(at, filepath.Base(h.Mount))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", dir, "cgroup", flags, h.Options); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, h := range trees { // cpu -> cpu,cpuacct and so on
		base := filepath.Base(h.Mount)
		for name := range strings.SplitSeq(base, ",") {
			if name != base {
				_ = os.Symlink(base, filepath.Join(at, name))
			}
		}
	}
	return nil
}

// initCgroup is where a machine's own processes live under v2.
const initCgroup = "init.scope"

// leaveRootCgroup makes room for v2's rule that a cgroup with children that
// have controllers holds no processes of its own.
func leaveRootCgroup(root string) error {
	own := filepath.Join(root, initCgroup)
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	delegate(root)
	return nil
}

// mountDirectories gives the machine directories of its own. Every source is
// opened first, since a mount may hide the source of another.
func (m *Machine) mountDirectories() error {
	type mount struct {
		from     *os.File
		to       string
		readOnly bool
	}
	var mounts []mount
	open := func(from, to string, readOnly bool) error {
		fd, err := unix.Open(from, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", from, err)
		}
		mounts = append(mounts, mount{os.NewFile(uintptr(fd), from), to, readOnly})
		return nil
	}
	for _, dir := range persistent {
		if _, err := os.Stat(dir); err != nil || dir == "/etc" {
			continue
		}
		if err := open(m.path("root", dir), dir, false); err != nil {
			return err
		}
	}
	if err := open(m.Spec.Program, Binary, true); err != nil {
		return err
	}
	for _, b := range m.Spec.Binds {
		if err := open(b.Source, b.Target, b.ReadOnly); err != nil {
			return err
		}
	}
	if err := m.mountEtc(); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, b := range mounts {
		if err := bind(b.from, b.to, b.readOnly); err != nil {
			return err
		}
		b.from.Close()
	}
	return os.MkdirAll("/run/lock", 0o1777)
}

func bind(from *os.File, to string, readOnly bool) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	if err := mountPoint(to, st.IsDir()); err != nil {
		return err
	}
	source := fmt.Sprintf("/proc/self/fd/%d", from.Fd())
	if err := unix.Mount(source, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", from.Name(), to, err)
	}
	if !readOnly {
		return nil
	}
	if err := unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", to, err)
	}
	return nil
}

func mountPoint(at string, dir bool) error {
	if _, err := os.Stat(at); err == nil {
		return nil
	}
	if dir {
		return os.MkdirAll(at, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// mountEtc lays the machine's own changes over the computer's /etc.
func (m *Machine) mountEtc() error {
	upper, work := m.path("root", "etc"), m.path("work", "etc")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace
	data := "lowerdir=/etc,upperdir=" + escape(upper) + ",workdir=" + escape(work)
	if err := unix.Mount("overlay", "/etc", "overlay", 0, data); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	return nil
}

// hideSettings puts a copy in front of every setting that is not the machine's.
func hideSettings() error {
	const copies = "/run/sampan/sys"
	for _, name := range machineWide {
		setting := filepath.Join("/proc/sys", name)
		value, err := os.ReadFile(setting)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil { // write-only ones
			value = nil
		}
		file := filepath.Join(copies, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, value, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, setting, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", setting, err)
		}
	}
	return nil
}

// writeNames says who the machine and its neighbours are. Names from elsewhere
// are asked of the switch, which answers at once that nobody is there.
func (m *Machine) writeNames() error {
	addr := m.Spec.Address.Addr()
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + addr.String() + "\t" + m.Spec.Name + "\n"
	for _, line := range m.Spec.Hosts {
		hosts += line + "\n"
	}
	for name, text := range map[string]string{
		"/etc/hostname":    m.Spec.Name + "\n",
		"/etc/hosts":       hosts,
		"/etc/resolv.conf": "nameserver " + gateway(m.Spec.Address).String() + "\n",
	} {
		// A link, as resolv.conf often is, may lead out of /etc to nowhere.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			// A file that is itself a mount cannot be removed, only written.
			if !errors.Is(err, unix.EBUSY) {
				return err
			}
			if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
				return err
			}
			_ = os.Remove(name)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

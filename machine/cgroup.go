package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/kit/clock"
)

// hierarchy is one mounted tree of cgroups: a v1 controller set, or v2's only.
type hierarchy struct {
	Mount   string // where it is mounted
	V2      bool
	Options string // what to mount it with again: "cpu,cpuacct", "none,name=systemd"
}

// pathIn finds this v1 tree's line in the text of a /proc/PID/cgroup file and
// returns the process's place in the tree.
func (h hierarchy) pathIn(cgroups string) string {
	want := strings.TrimPrefix(h.Options, "none,")
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(parts) == 3 && parts[1] == want {
			return parts[2]
		}
	}
	return "/"
}

// hierarchies returns the cgroup trees a machine gets. Where v1 controllers
// are mounted the v2 tree beside them is left out: it holds no controller that
// containers use, and its presence misleads what runs inside.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseHierarchies(f)
}

func parseHierarchies(mountinfo io.Reader) ([]hierarchy, error) {
	var v1, v2 []hierarchy
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		at := unescape(left[4])
		known := func(h hierarchy) bool { return h.Mount == at }
		switch right[0] {
		case "cgroup":
			if opts := controllers(right[2]); opts != "" && !slices.ContainsFunc(v1, known) {
				v1 = append(v1, hierarchy{Mount: at, Options: opts})
			}
		case "cgroup2":
			if !slices.ContainsFunc(v2, known) {
				v2 = append(v2, hierarchy{Mount: at, V2: true})
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(v1) > 0 {
		return v1, nil
	}
	if len(v2) == 0 {
		return nil, errors.New("no cgroups are mounted")
	}
	return v2[:1], nil
}

// controllers picks, of a v1 mount's options, those that say which tree it is.
func controllers(options string) string {
	var keep []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		case slices.Contains([]string{"rw", "ro", "xattr", "clone_children", "noprefix"}, o), strings.Contains(o, "="):
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// unescape undoes mountinfo's octal escapes of spaces and the like.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// makeCgroups makes the machine's cgroup in every tree.
func makeCgroups(id string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range trees {
		dir := filepath.Join(h.Mount, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if h.V2 {
			delegate(h.Mount)
			continue
		}
		// A new cpuset has no processors and no memory, and then no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(h.Mount, dir, file); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
		}
	}
	return nil
}

func inherit(parent, dir, file string) error {
	value, err := os.ReadFile(filepath.Join(parent, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), value, 0o644)
}

// delegate passes all of a v2 cgroup's controllers on to its children. One
// that cannot be passed on is simply not there for them, as on any computer
// without it.
func delegate(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
}

// joinCgroups moves a process into the machine's cgroups.
func joinCgroups(id string, pid int) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range trees {
		file := filepath.Join(h.Mount, id, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroups removes the machine's cgroups and all below them. A process
// that was killed leaves its cgroup a moment later, so this waits for that.
func removeCgroups(ctx context.Context, id string) error {
	trees, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range trees {
		dir := filepath.Join(h.Mount, id)
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			if clock.Sleep(ctx, 5*time.Millisecond) != nil {
				return fmt.Errorf("remove cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it, the deepest first. Their
// files cannot be removed and need not be.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// Package cgroup keeps the control groups of pods, in both versions of the
// kernel's interface, with upstream's names.
//
// Job: kubepods, its QoS children and one group per pod, with their limits.
//
// Not its job: containers' groups, which the runtime makes inside a pod's.
//
// Invariants: only groups below kubepods are made, changed or removed.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const mount = "/sys/fs/cgroup"

// Resources are a pod's limits; 0 is none.
type Resources struct {
	CPURequest, CPULimit int64 // thousandths
	MemoryLimit          int64
	Pids                 int64
}

// V2 says whether the unified hierarchy is the one in use.
func V2() bool {
	var st unix.Statfs_t
	return unix.Statfs(mount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// PodPath is the group of a pod, from the root of the hierarchy.
func PodPath(root string, qos corev1.PodQOSClass, uid types.UID) string {
	parts := []string{"/", root, "kubepods"}
	switch qos {
	case corev1.PodQOSBurstable:
		parts = append(parts, "burstable")
	case corev1.PodQOSBestEffort:
		parts = append(parts, "besteffort")
	}
	return path.Join(append(parts, "pod"+string(uid))...)
}

// controllers are the hierarchies of version 1 in which groups are made.
func controllers() []string {
	return []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb", "systemd", "net_cls", "net_prio", "perf_event"}
}

// Ensure makes the group and sets its limits.
func Ensure(group string, r Resources) error {
	if V2() {
		return ensureV2(mount, group, r)
	}
	for _, c := range controllers() {
		base := filepath.Join(mount, c)
		if _, err := os.Stat(filepath.Join(base, "cgroup.procs")); err != nil {
			continue // the kernel or the namespace has no such hierarchy
		}
		if err := makeV1(base, c, group); err != nil {
			return fmt.Errorf("cgroup: %s: %w", group, err)
		}
	}
	return errors.Join(
		SetCPU(group, r),
		limitIf(r.MemoryLimit > 0, filepath.Join(mount, "memory", group), "memory.limit_in_bytes", strconv.FormatInt(r.MemoryLimit, 10)),
		limitIf(r.Pids > 0, filepath.Join(mount, "pids", group), "pids.max", strconv.FormatInt(r.Pids, 10)),
	)
}

// SetCPU changes a group's share and limit of the processors.
func SetCPU(group string, r Resources) error {
	if V2() {
		return cpuV2(filepath.Join(mount, group), r)
	}
	cpu := filepath.Join(mount, "cpu", group)
	return errors.Join(
		write(cpu, "cpu.shares", strconv.FormatInt(shares(r.CPURequest), 10)),
		write(cpu, "cpu.cfs_quota_us", quotaV1(r.CPULimit)),
	)
}

func cpuV2(dir string, r Resources) error {
	return errors.Join(write(dir, "cpu.weight", strconv.FormatInt(weight(r.CPURequest), 10)), write(dir, "cpu.max", quotaV2(r.CPULimit)))
}

// SetMemory changes a group's limit of memory.
func SetMemory(group string, r Resources) error {
	if V2() {
		return write(filepath.Join(mount, group), "memory.max", memoryV2(r.MemoryLimit))
	}
	limit := "-1"
	if r.MemoryLimit > 0 {
		limit = strconv.FormatInt(r.MemoryLimit, 10)
	}
	return write(filepath.Join(mount, "memory", group), "memory.limit_in_bytes", limit)
}

// unlimited is more memory than any limit means.
const unlimited = 1 << 62

// Read returns a group's limits as they are.
func Read(group string) (Resources, error) {
	if V2() {
		return readV2(filepath.Join(mount, group))
	}
	quota, err := number(filepath.Join(mount, "cpu", group, "cpu.cfs_quota_us"))
	share, err2 := number(filepath.Join(mount, "cpu", group, "cpu.shares"))
	memory, err3 := number(filepath.Join(mount, "memory", group, "memory.limit_in_bytes"))
	if err := errors.Join(err, err2, err3); err != nil {
		return Resources{}, err
	}
	out := Resources{CPURequest: share * 1000 / 1024, CPULimit: max(quota, 0) / 100, MemoryLimit: memory}
	if memory > unlimited {
		out.MemoryLimit = 0
	}
	return out, nil
}

func readV2(dir string) (Resources, error) {
	var out Resources
	weight, err := number(filepath.Join(dir, "cpu.weight"))
	if err != nil {
		return out, err
	}
	out.CPURequest = (2 + (weight-1)*262142/9999) * 1000 / 1024
	b, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return out, fmt.Errorf("cgroup: %w", err)
	}
	if quota, _, _ := strings.Cut(strings.TrimSpace(string(b)), " "); quota != "max" {
		n, err := strconv.ParseInt(quota, 10, 64)
		if err != nil {
			return out, fmt.Errorf("cgroup: %s: %w", dir, err)
		}
		out.CPULimit = n / 100
	}
	out.MemoryLimit, err = number(filepath.Join(dir, "memory.max"))
	return out, err
}

// number reads a file of one number; "max" is 0.
func number(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("cgroup: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cgroup: %s: %w", file, err)
	}
	return n, nil
}

func limitIf(on bool, dir, file, v string) error {
	if !on {
		return nil
	}
	return write(dir, file, v)
}

// makeV1 makes the directories one by one: a cpuset must be given its CPUs and
// memory nodes before anything can live in it.
func makeV1(base, controller, group string) error {
	full := filepath.Join(base, group)
	if _, err := os.Stat(full); err == nil {
		return nil
	}
	if parent := path.Dir(group); parent != "/" {
		if err := makeV1(base, controller, parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(full, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if controller != "cpuset" {
		return nil
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(full), f))
		if err != nil {
			return err
		}
		if err := write(full, f, string(b)); err != nil {
			return err
		}
	}
	return nil
}

func ensureV2(base, group string, r Resources) error {
	full := filepath.Join(base, group)
	if err := os.MkdirAll(full, 0o755); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	// Controllers reach a group only through every group above it, from the top.
	var above []string
	for dir := path.Dir(group); dir != "/" && dir != "."; dir = path.Dir(dir) {
		above = append([]string{dir}, above...)
	}
	for _, dir := range append([]string{"/"}, above...) {
		for _, c := range []string{"+cpu", "+cpuset", "+memory", "+pids"} {
			_ = write(filepath.Join(base, dir), "cgroup.subtree_control", c) // one that is not there is done without
		}
	}
	return limitsV2(full, r)
}

func limitsV2(full string, r Resources) error {
	files := map[string]string{"cpu.weight": strconv.FormatInt(weight(r.CPURequest), 10), "cpu.max": quotaV2(r.CPULimit), "memory.max": memoryV2(r.MemoryLimit)}
	if r.Pids > 0 {
		files["pids.max"] = strconv.FormatInt(r.Pids, 10)
	}
	var errs []error
	for file, v := range files {
		if err := write(full, file, v); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func weight(milli int64) int64 { return 1 + (shares(milli)-2)*9999/262142 }

func quotaV2(milli int64) string {
	if milli == 0 {
		return "max 100000"
	}
	return strconv.FormatInt(max(milli*100, 1000), 10) + " 100000"
}

func memoryV2(limit int64) string {
	if limit <= 0 {
		return "max"
	}
	return strconv.FormatInt(limit, 10)
}

func shares(milli int64) int64 { return min(max(milli*1024/1000, 2), 262144) }

func quotaV1(milli int64) string {
	if milli == 0 {
		return "-1"
	}
	return strconv.FormatInt(max(milli*100, 1000), 10)
}

func write(dir, file, v string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(v), 0o644); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// Remove removes the group and what the runtime left in it.
func Remove(group string) error {
	bases := []string{mount}
	if !V2() {
		bases = nil
		for _, c := range controllers() {
			bases = append(bases, filepath.Join(mount, c))
		}
	}
	var errs []error
	for _, b := range bases {
		errs = append(errs, remove(filepath.Join(b, group)))
	}
	return errors.Join(errs...)
}

func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cgroup: remove %s: %w", dir, err)
	}
	return nil
}

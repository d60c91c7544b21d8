package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestPodPath(t *testing.T) {
	for qos, want := range map[corev1.PodQOSClass]string{
		corev1.PodQOSGuaranteed: "/kubepods/podu", corev1.PodQOSBurstable: "/kubepods/burstable/podu", corev1.PodQOSBestEffort: "/kubepods/besteffort/podu",
	} {
		if got := PodPath("", qos, "u"); got != want {
			t.Errorf("%s: %s, want %s", qos, got, want)
		}
	}
	if got := PodPath("/node", corev1.PodQOSGuaranteed, "u"); got != "/node/kubepods/podu" {
		t.Errorf("below a root: %s", got)
	}
}

// TestVersion2 writes to plain files what the unified hierarchy would be told.
func TestVersion2(t *testing.T) {
	base := t.TempDir()
	if err := ensureV2(base, "/kubepods/burstable/podu", Resources{CPURequest: 500, CPULimit: 1500, MemoryLimit: 64 << 20, Pids: 100}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "kubepods/burstable/podu")
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(b))
	}
	for file, want := range map[string]string{"cpu.weight": "20", "cpu.max": "150000 100000", "memory.max": "67108864", "pids.max": "100"} {
		if got := read(file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	for _, above := range []string{"", "kubepods", "kubepods/burstable"} {
		if _, err := os.Stat(filepath.Join(base, above, "cgroup.subtree_control")); err != nil {
			t.Errorf("controllers do not reach below %q: %v", above, err)
		}
	}
	got, err := readV2(dir)
	if err != nil || got.CPULimit != 1500 || got.MemoryLimit != 64<<20 {
		t.Errorf("read %+v, %v", got, err)
	}
	if err := cpuV2(dir, Resources{CPURequest: 1000}); err != nil {
		t.Fatal(err)
	}
	if read("cpu.max") != "max 100000" || read("cpu.weight") != "39" {
		t.Errorf("without a limit: %s, weight %s", read("cpu.max"), read("cpu.weight"))
	}
	if err := limitsV2(dir, Resources{}); err != nil || read("memory.max") != "max" {
		t.Errorf("memory without a limit: %s, %v", read("memory.max"), err)
	}
}

func TestMachineV2(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"memory.current": "1000\n", "memory.stat": "anon 300\ninactive_file 400\npgfault 7\n", "cpu.stat": "usage_usec 5\nuser_usec 3\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if u := machineV2(dir); u.CPU != 5000 || u.WorkingSet != 600 || u.Rss != 300 || u.Faults != 7 {
		t.Errorf("got %+v", u)
	}
	// A computer's own root has no such files: the kernel's figures stand in.
	if u := machineV2(t.TempDir()); u.Memory == 0 || u.CPU == 0 {
		t.Errorf("the kernel tells %+v", u)
	}
}

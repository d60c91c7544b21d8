package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a group uses.
type Usage struct {
	CPU                     uint64 // nanoseconds, ever
	Memory, WorkingSet, Rss uint64
	Faults, MajorFaults     uint64
}

// Machine returns what all processes that this one can see use together.
func Machine() Usage {
	if V2() {
		return machineV2(mount)
	}
	cpu, err := number(filepath.Join(mount, "cpuacct", "cpuacct.usage"))
	memory, err2 := number(filepath.Join(mount, "memory", "memory.usage_in_bytes"))
	if err != nil || err2 != nil {
		return kernel()
	}
	s := table(filepath.Join(mount, "memory", "memory.stat"))
	return Usage{
		CPU: uint64(cpu), Memory: uint64(memory), WorkingSet: less(uint64(memory), s["total_inactive_file"]), Rss: s["total_rss"],
		Faults: s["total_pgfault"], MajorFaults: s["total_pgmajfault"],
	}
}

func machineV2(dir string) Usage {
	memory, err := number(filepath.Join(dir, "memory.current"))
	if err != nil {
		return kernel() // the true root of a computer has no such file
	}
	s := table(filepath.Join(dir, "memory.stat"))
	return Usage{
		CPU: table(filepath.Join(dir, "cpu.stat"))["usage_usec"] * 1000, Memory: uint64(memory), WorkingSet: less(uint64(memory), s["inactive_file"]),
		Rss: s["anon"], Faults: s["pgfault"], MajorFaults: s["pgmajfault"],
	}
}

// kernel reads /proc for the whole computer.
func kernel() Usage {
	var u Usage
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		first, _, _ := strings.Cut(string(b), "\n")
		for i, f := range strings.Fields(first) {
			n, err := strconv.ParseUint(f, 10, 64)
			if err == nil && i != 4 && i != 5 { // all but idle and waiting, in hundredths of a second
				u.CPU += n * 1e7
			}
		}
	}
	m := table("/proc/meminfo")
	u.Memory = less(m["MemTotal:"], m["MemFree:"]) << 10
	u.WorkingSet = less(m["MemTotal:"], m["MemAvailable:"]) << 10
	u.Rss = m["AnonPages:"] << 10
	v := table("/proc/vmstat")
	u.Faults, u.MajorFaults = v["pgfault"], v["pgmajfault"]
	return u
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// table reads lines of a name and a number.
func table(file string) map[string]uint64 {
	out := map[string]uint64{}
	f, err := os.Open(file)
	if err != nil {
		return out
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 {
			if n, err := strconv.ParseUint(w[1], 10, 64); err == nil {
				out[w[0]] = n
			}
		}
	}
	return out
}

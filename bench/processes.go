package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// process is what /proc says of one of the cluster's processes.
type process struct {
	name     string
	pss      float64 // MiB
	cpuTicks float64
}

// processes reads all processes in the namespaces of the bench cluster's node.
func processes() (map[int]process, error) {
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	out := map[int]process{}
	for _, dir := range pids {
		cgroup, err := os.ReadFile(dir + "/cgroup")
		if err != nil || !strings.Contains(string(cgroup), "bench") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		words := strings.Fields(strings.ReplaceAll(string(cmdline), "\x00", " "))
		if len(words) == 0 {
			continue
		}
		name := filepath.Base(words[0])
		if len(words) > 1 && name == "sampan" {
			name += " " + words[1]
		}
		out[pid] = process{name, pss(dir), ticks(dir)}
	}
	return out, nil
}

func pss(dir string) float64 {
	f, err := os.Open(dir + "/smaps_rollup")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// ticks returns the processor time used, in hundredths of a second.
func ticks(dir string) float64 {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return user + system
}

// idle watches the cluster do nothing.
func (b *bench) idle(ctx context.Context, d time.Duration) error {
	before, err := processes()
	if err != nil {
		return err
	}
	if err := clock.Sleep(ctx, d); err != nil {
		return err
	}
	after, err := processes()
	if err != nil {
		return err
	}
	memory, cpu, count := map[string]float64{}, map[string]float64{}, map[string]int{}
	for pid, p := range after {
		memory[p.name] += p.pss
		count[p.name]++
		if old, ok := before[pid]; ok {
			cpu[p.name] += (p.cpuTicks - old.cpuTicks) / d.Seconds() // ticks are 1/100 s: percent of a core
		}
	}
	var all, allCPU float64
	for name := range memory {
		note := fmt.Sprintf("%d process(es)", count[name])
		figure{What: "idle PSS: " + name, Value: memory[name], Unit: "MiB", Note: note}.print()
		figure{What: "idle CPU: " + name, Value: cpu[name], Unit: "% of a core", Note: note}.print()
		all, allCPU = all+memory[name], allCPU+cpu[name]
	}
	figure{What: "idle PSS: everything in the node", Value: all, Unit: "MiB"}.print()
	figure{What: "idle CPU: everything in the node", Value: allCPU, Unit: "% of a core"}.print()
	return nil
}

// serverTicks is the processor time of the node's server so far.
func serverTicks() float64 {
	ps, err := processes()
	if err != nil {
		return 0
	}
	var t float64
	for _, p := range ps {
		if p.name == "sampan server" {
			t += p.cpuTicks
		}
	}
	return t
}

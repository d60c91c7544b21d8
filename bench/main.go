// Command bench measures a real cluster made by bin/sampan and prints one JSON
// object a line: {"what", "value", "unit", …}. It asserts nothing.
//
// It needs root and the images that the e2e tests use; its cluster is called
// "bench" and is removed at the end. Everything is bounded in count and time.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
)

// figure is one line of output.
type figure struct {
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Clients int     `json:"clients,omitempty"`
	CPU     float64 `json:"server_cpu_ms_per_op,omitempty"`
	P99     float64 `json:"p99_ms,omitempty"`
	Note    string  `json:"note,omitempty"`
}

func (f figure) print() { _ = json.NewEncoder(os.Stdout).Encode(f) }

// bench is one run.
type bench struct {
	binary, home string
	c            client.Interface
}

func main() {
	idle := flag.Duration("idle", 60*time.Second, "how long to watch the idle cluster")
	settle := flag.Duration("settle", 45*time.Second, "how long a new cluster reads its images in before pods are made, and these come to rest before the idle cluster is watched")
	n := flag.Int("n", 4000, "operations of each throughput figure")
	flag.Parse()
	if err := measure(*settle, *idle, *n); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(settle, idle time.Duration, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	binary, err := filepath.Abs("bin/sampan")
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp("/var/tmp", "sampan-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	for k, v := range map[string]string{"SAMPAN_HOME": home, "KUBECONFIG": filepath.Join(home, "kubeconfig")} {
		if err := os.Setenv(k, v); err != nil {
			return err
		}
	}
	conditions("at the start")
	b := &bench{binary: binary, home: home}
	if err := b.sampan(ctx, "image", "build", "--cluster", "bench", "--from-deb", "nginx", "--cache", "/var/tmp/sampan-deb-cache"); err != nil {
		return err
	}
	defer func() { _ = b.sampan(context.WithoutCancel(ctx), "down", "bench", "--delete") }()
	if err := b.starts(ctx); err != nil {
		return err
	}
	if b.c, err = client.FromKubeconfig("", ""); err != nil {
		return err
	}
	if err := clock.Sleep(ctx, settle); err != nil {
		return err
	}
	if err := b.pods(ctx); err != nil {
		return err
	}
	if err := clock.Sleep(ctx, settle); err != nil {
		return err
	}
	if err := b.idle(ctx, idle); err != nil {
		return err
	}
	err = b.throughput(ctx, n)
	conditions("at the end")
	return err
}

// conditions prints how busy the computer was: figures of time mean little
// without it, figures of the server's own processor time more.
func conditions(when string) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	var load float64
	if _, err := fmt.Sscan(string(text), &load); err == nil {
		figure{What: "load average " + when, Value: load, Unit: "processes", Note: fmt.Sprintf("%d cores", runtime.NumCPU())}.print()
	}
}

func (b *bench) sampan(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sampan %v: %w", args, err)
	}
	return nil
}

// starts times the first up, and one that finds the cluster's data there.
func (b *bench) starts(ctx context.Context) error {
	start := clock.Now()
	if err := b.sampan(ctx, "up", "bench", "--wait", "2m"); err != nil {
		return err
	}
	figure{What: "up to node Ready, new cluster", Value: clock.Since(start).Seconds(), Unit: "s"}.print()
	if err := b.sampan(ctx, "down", "bench"); err != nil {
		return err
	}
	start = clock.Now()
	if err := b.sampan(ctx, "up", "bench", "--wait", "0"); err != nil {
		return err
	}
	figure{What: "up to /readyz, existing cluster", Value: clock.Since(start).Seconds(), Unit: "s"}.print()
	return b.sampan(ctx, "up", "bench", "--wait", "2m")
}

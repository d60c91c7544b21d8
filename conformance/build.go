package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// program is something built from Go modules, here or in a module of its own.
type program struct {
	name, pkg string
	dir       string // its module, below this directory
	test      bool   // a test binary
}

// programs are the suite, what runs it, and what its images hold. Those with a
// module of their own need versions that the suite's module does not.
var programs = []program{
	{name: "e2e.test", pkg: "k8s.io/kubernetes/test/e2e", test: true},
	{name: "ginkgo", pkg: "github.com/onsi/ginkgo/v2/ginkgo"},
	{name: "agnhost", pkg: "k8s.io/kubernetes/test/images/agnhost"},
	{name: "nnp", pkg: "k8s.io/kubernetes/test/images/nonewprivs"},
	{name: "sh", pkg: "./props/sh"},
	{name: "coredns", pkg: ".", dir: "props/coredns"},
	{name: "etcd", pkg: ".", dir: "props/etcd"},
	{name: "sample-apiserver", pkg: "k8s.io/sample-apiserver", dir: "props/sample-apiserver"},
}

func (c *config) program(name string) string { return filepath.Join(c.bin, name) }

// build makes every program. Go's own cache says what is up to date already,
// but linking the suite takes a while, so what is there is kept until the
// module's versions change.
func (c *config) build(ctx context.Context) error {
	if err := os.MkdirAll(c.bin, 0o755); err != nil {
		return err
	}
	for _, p := range programs {
		out := c.program(p.name)
		if newer(out, filepath.Join(p.dir, "go.mod")) {
			continue
		}
		args := []string{"build"}
		if p.test {
			args = []string{"test", "-c", "-vet=off"}
		}
		args = append(args, "-ldflags", "-s -w", "-o", out, p.pkg)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = p.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if err := step("build "+p.name, cmd); err != nil {
			return err
		}
	}
	return nil
}

// newer says whether the file a is there and not older than b.
func newer(a, b string) bool {
	sa, err := os.Stat(a)
	if err != nil {
		return false
	}
	sb, err := os.Stat(b)
	return err == nil && !sa.ModTime().Before(sb.ModTime())
}

// step runs a command that must succeed, and says how long it took.
func step(what string, cmd *exec.Cmd) error {
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", what, err, strings.TrimSpace(string(out)))
	}
	fmt.Printf("%-60s %6.1f s\n", what, time.Since(start).Seconds())
	return nil
}

// moduleDir is where a package's source is, for the files that go with it.
func moduleDir(ctx context.Context, pkg string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", pkg)
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("where is %s: %w", pkg, err)
	}
	return strings.TrimSpace(string(out)), nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// program is a command of a published Go module.
type program struct {
	module  string // with the files that go with it: manifests, charts
	version string
	pkg     string // the command, below the module
	dir     string // the module that names its versions, below programs/
}

const certModule = "github.com/cert-manager/cert-manager"

// programs are those whose users are played here. Where the newest version's
// commands are not in any published module, it is the last one whose are.
var programs = map[string]program{
	"helm3":                   {module: "helm.sh/helm/v3", version: "v3.22.0", pkg: "cmd/helm", dir: "helm3"},
	"helm4":                   {module: "helm.sh/helm/v4", version: "v4.3.1", pkg: "cmd/helm", dir: "helm4"},
	"metrics-server":          {module: "sigs.k8s.io/metrics-server", version: "v0.9.0", pkg: "cmd/metrics-server", dir: "metrics-server"},
	"cert-manager-controller": {module: certModule, version: certVersion, pkg: "cmd/controller", dir: "cert-manager"},
	"cert-manager-webhook":    {module: certModule, version: certVersion, pkg: "cmd/webhook", dir: "cert-manager"},
	"cert-manager-cainjector": {module: certModule, version: certVersion, pkg: "cmd/cainjector", dir: "cert-manager"},
	"cert-manager-ctl":        {module: certModule, version: certVersion, pkg: "cmd/ctl", dir: "cert-manager"},
	"prometheus-operator":     {module: "github.com/prometheus-operator/prometheus-operator", version: "v0.85.0", pkg: "cmd/operator", dir: "prometheus-operator"},
}

// program is where a program is built.
func (c *config) program(name string) string { return filepath.Join(c.bin, name) }

// needs says whether a run uses a program: those of its scenes, and the Helm
// that installs the others' charts.
func (c *config) needs(name string) bool {
	match, err := regexp.MatchString(c.only, name)
	return err != nil || match || name == "helm4"
}

// build makes every program that is not there yet; what is there is kept until
// its module's versions change.
func (c *config) build(ctx context.Context) error {
	if err := os.MkdirAll(c.bin, 0o755); err != nil {
		return err
	}
	for name, p := range programs {
		dir, out := filepath.Join("programs", p.dir), c.program(name)
		if !c.needs(name) || newer(out, filepath.Join(dir, "go.mod")) {
			continue
		}
		flags := "-s -w"
		if strings.HasPrefix(name, "helm") { // what its releases are stamped with, too
			flags += fmt.Sprintf(" -X %s/internal/version.version=%s", p.module, p.version)
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", flags, "-o", out, p.module+"/"+p.pkg)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if err := step("build "+name+" "+p.version, cmd); err != nil {
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

// source is where a program's module is, with the manifests it publishes.
func source(ctx context.Context, name string) (string, error) {
	p := programs[name]
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", p.module)
	cmd.Dir = filepath.Join("programs", p.dir)
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("where is %s: %w", p.module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// step runs a command that must succeed, and says how long it took.
func step(what string, cmd *exec.Cmd) error {
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", what, err, strings.TrimSpace(string(out)))
	}
	fmt.Printf("%-72s %6.1f s\n", what, time.Since(start).Seconds())
	return nil
}

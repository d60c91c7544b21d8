package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// environment is that of every command of a run: nothing of the caller's own
// cluster, Helm or cache is read or written.
func (c *config) environment() []string {
	env := append(os.Environ(), "SAMPAN_HOME="+c.home, "KUBECONFIG="+filepath.Join(c.home, "kubeconfig"), "KUBECACHEDIR="+filepath.Join(c.home, "kubecache"))
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		env = append(env, "HELM_"+kind+"_HOME="+filepath.Join(c.home, "helm", strings.ToLower(kind)))
	}
	return env
}

// command is sampan with its own home and kubeconfig.
func (c *config) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.sampan, args...)
	cmd.Env = c.environment()
	return cmd
}

func (c *config) up(ctx context.Context) error {
	return step("cluster "+c.cluster+" with one node", c.command(ctx, "up", c.cluster, "--wait", "5m"))
}

// down takes the cluster away, also when the run was interrupted.
func (c *config) down(ctx context.Context) error {
	c.saveLogs()
	return step("take the cluster down", c.command(context.WithoutCancel(ctx), "down", c.cluster, "--delete"))
}

// saveLogs keeps what the node said.
func (c *config) saveLogs() {
	logs, _ := filepath.Glob(filepath.Join(c.home, "clusters", c.cluster, "*", "console.log"))
	for _, l := range logs {
		if data, err := os.ReadFile(l); err == nil {
			_ = os.WriteFile(filepath.Join(c.home, filepath.Base(filepath.Dir(l))+".log"), data, 0o644)
		}
	}
}

// version is what the binary says it is.
func (c *config) version(ctx context.Context) string {
	out, err := c.command(ctx, "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(strings.Split(string(out), "\n")[0])
}

// stage is the cluster as the scenes see it: commands against it, and waits.
type stage struct {
	*config
	dir string // for files a scene makes
}

// run runs a command and returns its output, both streams together.
func (s *stage) run(ctx context.Context, stdin string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdin = s.environment(), s.dir, strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", filepath.Base(argv[0]), strings.Join(argv[1:], " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// kubectl runs the computer's own kubectl where there is one, else the built-in.
func (s *stage) kubectl(ctx context.Context, args ...string) (string, error) {
	return s.in(ctx, "", args...)
}

// in runs kubectl with standard input.
func (s *stage) in(ctx context.Context, stdin string, args ...string) (string, error) {
	return s.run(ctx, stdin, append(s.kubectls()[0], args...)...)
}

// kubectls are the ways to call kubectl here.
func (s *stage) kubectls() [][]string {
	all := [][]string{{s.sampan, "kubectl"}}
	if stock, err := exec.LookPath("kubectl"); err == nil {
		all = append([][]string{{stock}}, all...)
	}
	return all
}

// object reads one object into v.
func (s *stage) object(ctx context.Context, v any, args ...string) error {
	out, err := s.kubectl(ctx, append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// field is one field of one object, by a JSONPath.
func (s *stage) field(ctx context.Context, path string, args ...string) (string, error) {
	return s.kubectl(ctx, append([]string{"get", "-o", "jsonpath=" + path}, args...)...)
}

// is checks one field of one object.
func (s *stage) is(ctx context.Context, want, path string, args ...string) error {
	got, err := s.field(ctx, path, args...)
	if err == nil && got != want {
		err = fmt.Errorf("%s %s is %q, want %q", strings.Join(args, " "), path, got, want)
	}
	return err
}

// until repeats fn until it returns no error; the bound is generous, since the
// computer may be busy.
func (s *stage) until(ctx context.Context, limit time.Duration, fn func() error) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		err := fn()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not after %s: %w", limit, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// says checks that an output has all of texts.
func says(out string, err error, texts ...string) error {
	if err != nil {
		return err
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			return fmt.Errorf("%q is missing in:\n%s", text, out)
		}
	}
	return nil
}

// refused checks that a command failed, and said all of texts.
func refused(out string, err error, texts ...string) error {
	if err == nil {
		return fmt.Errorf("it was not refused:\n%s", out)
	}
	return says(out, nil, texts...)
}

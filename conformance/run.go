package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

// run judges a cluster and writes the report. What could not be run is said in
// the report, too, so only a judge that did not get to judging is an error.
func (c *config) run(ctx context.Context) (err error) {
	if err := os.MkdirAll(c.home, 0o755); err != nil {
		return err
	}
	if err := c.images(ctx); err != nil {
		return err
	}
	old, err := readResults(c.facts)
	if err != nil {
		return err
	}
	all, err := c.specs(ctx)
	if err != nil {
		return err
	}
	chosen, err := c.choose(all, old)
	if err != nil {
		return err
	}
	if !c.keep {
		defer func() {
			c.saveLogs()
			err = errors.Join(err, step("take the cluster down", c.command(context.WithoutCancel(ctx), "down", c.cluster, "--delete")))
		}()
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	now := results{Nodes: c.nodes, Procs: c.procs, Specs: map[string]spec{}}
	start := time.Now()
	for _, part := range []struct {
		name  string
		specs []string
		procs int
	}{
		{"parallel", slices.DeleteFunc(slices.Clone(chosen), serial), c.procs},
		{"serial", slices.DeleteFunc(slices.Clone(chosen), func(s string) bool { return !serial(s) }), 1},
	} {
		if len(part.specs) == 0 || ctx.Err() != nil {
			continue
		}
		took, err := c.suite(ctx, part.name, part.specs, part.procs, c.limit-time.Since(start))
		if err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err) // what ended is reported all the same
		}
		if err := now.read(filepath.Join(c.home, "reports", part.name+".xml"), part.specs); err != nil {
			return err
		}
		if part.procs == 1 {
			now.SerialSeconds = took.Seconds()
		} else {
			now.ParallelSeconds = took.Seconds()
		}
	}
	now.stamp(c.revision(context.WithoutCancel(ctx)), time.Now().UTC())
	old.merge(now, all)
	now.say(os.Stdout, chosen)
	return errors.Join(old.write(c.facts), c.write(old))
}

func serial(name string) bool { return strings.Contains(name, "[Serial]") }

// again writes the report from the results that are kept.
func (c *config) again(context.Context) error {
	r, err := readResults(c.facts)
	if err != nil {
		return err
	}
	return c.write(r)
}

// specs lists the names of all conformance specs, as the suite itself does.
func (c *config) specs(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, c.program("e2e.test"), "--list-conformance-tests").Output()
	if err != nil {
		return nil, fmt.Errorf("list the specs: %w", err)
	}
	var listed []struct{ Codename string }
	if err := yaml.Unmarshal(out, &listed); err != nil {
		return nil, fmt.Errorf("list the specs: %w", err)
	}
	var all []string
	for _, l := range listed {
		all = append(all, l.Codename)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == 0 {
		return nil, errors.New("list the specs: there are none")
	}
	return all, nil
}

func (c *config) choose(all []string, old results) ([]string, error) {
	focus, err := regexp.Compile(c.focus)
	if err != nil {
		return nil, fmt.Errorf("-focus: %w", err)
	}
	skip, err := regexp.Compile(cmp.Or(c.skip, "^$"))
	if err != nil {
		return nil, fmt.Errorf("-skip: %w", err)
	}
	var out []string
	for _, s := range all {
		if focus.MatchString(s) && !skip.MatchString(s) && !(c.failed && old.Specs[s].State == passed) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no spec is left to run")
	}
	return out, nil
}

// up makes the cluster and the configuration with which the suite reaches it
// from inside its switch.
func (c *config) up(ctx context.Context) error {
	if err := step(fmt.Sprintf("cluster %s with %d nodes", c.cluster, c.nodes), c.command(ctx, "up", c.cluster, "--nodes", fmt.Sprint(c.nodes), "--wait", "5m")); err != nil {
		return err
	}
	out, err := c.command(ctx, "kubectl", "get", "node", c.cluster+"-1", "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`).Output()
	if err != nil {
		return fmt.Errorf("address of the first node: %w", err)
	}
	conf, err := os.ReadFile(filepath.Join(c.home, "kubeconfig"))
	if err != nil {
		return err
	}
	server := regexp.MustCompile(`server: https://127\.0\.0\.1:\d+`)
	conf = server.ReplaceAll(conf, []byte("server: https://"+string(out)+":6443"))
	if err := os.WriteFile(c.kubeconfig(), conf, 0o600); err != nil {
		return err
	}
	link := filepath.Join(c.home, "path", "kubectl")
	if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.RemoveAll(link), os.Symlink(c.sampan, link)); err != nil {
		return err
	}
	return nil
}

func (c *config) kubeconfig() string { return filepath.Join(c.home, "suite.kubeconfig") }

// suite runs specs by their names and returns how long that took.
func (c *config) suite(ctx context.Context, name string, specs []string, procs int, limit time.Duration) (time.Duration, error) {
	if limit <= 0 {
		return 0, fmt.Errorf("%s specs: no time is left", name)
	}
	dir := filepath.Join(c.home, "reports")
	report := filepath.Join(dir, name+".xml")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.RemoveAll(report)); err != nil {
		return 0, err
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	quoted := make([]string, len(specs))
	for i, s := range specs {
		quoted[i] = regexp.QuoteMeta(s)
	}
	args := []string{
		"--net=/run/netns/sampan-" + c.cluster, c.program("ginkgo"), "run",
		"--procs", fmt.Sprint(procs), "--focus", strings.Join(quoted, "|"), "--silence-skips", "--no-color", "--keep-going",
		"--timeout", limit.Round(time.Second).String(), "--grace-period", "20s", "--poll-progress-after", "5m", "--poll-progress-interval", "5m",
		"--output-dir", dir, "--junit-report", name + ".xml",
		c.program("e2e.test"), "--",
		"--provider=skeleton", "--kubeconfig=" + c.kubeconfig(), "--disable-log-dump", "--allowed-not-ready-nodes=-1",
	}
	// Past the suite's own bound, which ends it in order, it is ended for good.
	ctx, cancel := context.WithTimeout(ctx, limit+2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.home, "path")+":"+os.Getenv("PATH"), "KUBECONFIG="+c.kubeconfig(), "KUBECACHEDIR="+filepath.Join(c.home, "kubecache"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.home, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	fmt.Printf("%s: %d specs, %d at once; the log is %s\n", name, len(specs), procs, log.Name())
	start := time.Now()
	err = cmd.Run()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what outlived it; most often nothing
	took := time.Since(start)
	fmt.Printf("%s: %.0f s\n", name, took.Seconds())
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		err = nil // specs failed; the report says which
	}
	return took, err
}

// saveLogs keeps what the nodes said.
func (c *config) saveLogs() {
	to := filepath.Join(c.home, "logs")
	_ = os.MkdirAll(to, 0o755)
	logs, _ := filepath.Glob(filepath.Join(c.home, "clusters", c.cluster, "*", "console.log"))
	for _, l := range logs {
		if data, err := os.ReadFile(l); err == nil {
			_ = os.WriteFile(filepath.Join(to, filepath.Base(filepath.Dir(l))+".log"), data, 0o644)
		}
	}
}

// revision is what the binary says it was built of.
func (c *config) revision(ctx context.Context) string {
	out, _ := c.command(ctx, "version").Output()
	if m := regexp.MustCompile(`sampan\.([0-9a-f]{7,12})`).FindStringSubmatch(string(out)); m != nil {
		return m[1]
	}
	return "unknown"
}

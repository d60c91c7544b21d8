package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// marked returns the lines of the code blocks of a page that say they are tested.
func marked(t *testing.T, page string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	ours, inside := false, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "<!-- tested"):
			ours = true
		case strings.HasPrefix(line, "```") && inside:
			ours, inside = false, false
		case strings.HasPrefix(line, "```"):
			inside = ours
		case inside && strings.TrimSpace(line) != "":
			lines = append(lines, line)
		}
	}
	return lines
}

// Every example of the README is run as it stands, in order, from the
// repository's root. What a line says is checked by the line succeeding; the
// clusters are the tests' own by SAMPAN_HOME and their names.
func TestReadmeExamples(t *testing.T) {
	if why := cannotRun(); why != "" {
		t.Skip(why)
	}
	t.Parallel()
	lines := marked(t, "../README.md")
	if len(lines) < 15 {
		t.Fatalf("only %d lines are marked", len(lines))
	}
	dir, err := os.MkdirTemp("/var/tmp", homePrefix+"readme-")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "SAMPAN_HOME="+dir, "KUBECONFIG="+filepath.Join(dir, "kubeconfig"))
	// The names in the page are a user's own; here they get the tests' prefix.
	own := strings.NewReplacer("bin/sampan up  ", "bin/sampan up e2er ", "bin/sampan down  ", "bin/sampan down e2er ", "bin/sampan down --delete", "bin/sampan down e2er --delete",
		"bin/sampan exec --", "bin/sampan exec --cluster e2er --", "--from-deb", "--cluster e2er --cache /var/tmp/sampan-deb-cache --from-deb",
		" ci ", " e2erc ", "/tmp/", dir+"/")
	run := func(line string) ([]byte, error) {
		cmd := exec.Command("bash", "-euc", line)
		cmd.Dir, cmd.Env = filepath.Dir(filepath.Dir(binary)), env
		timer := time.AfterFunc(3*limit, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		return cmd.CombinedOutput()
	}
	t.Cleanup(func() {
		for _, name := range []string{"e2er", "e2erc"} {
			if out, err := run("bin/sampan down " + name + " --delete"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
		os.RemoveAll(dir)
	})
	for _, line := range lines {
		start := time.Now()
		out, err := run(own.Replace(line))
		t.Logf("%5.1f s  %s", time.Since(start).Seconds(), line)
		if err != nil {
			t.Fatalf("%s: %v\n%s", own.Replace(line), err, out)
		}
	}
}

// Links between pages lead somewhere.
func TestPagesLinkToWhatIsThere(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for rest := string(text); ; {
			_, after, ok := strings.Cut(rest, "](")
			if !ok {
				break
			}
			link, tail, _ := strings.Cut(after, ")")
			rest = tail
			if strings.Contains(link, "://") || strings.HasPrefix(link, "#") {
				continue
			}
			link, _, _ = strings.Cut(link, "#")
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), link)); err != nil {
				t.Errorf("%s: %s is not there", page, link)
			}
		}
	}
}

// make demo, from its script on: what a new user sees first.
func TestDemo(t *testing.T) {
	if why := cannotRun(); why != "" {
		t.Skip(why)
	}
	t.Parallel()
	dir, err := os.MkdirTemp("/var/tmp", homePrefix+"demo-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/var/tmp/sampan-deb-cache", filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "SAMPAN_HOME="+dir, "KUBECONFIG="+filepath.Join(dir, "kubeconfig"), "SAMPAN_DEMO_CLUSTER=e2ed")
	t.Cleanup(func() {
		down := exec.Command(binary, "down", "e2ed", "--delete")
		down.Env = env
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		os.RemoveAll(dir)
	})
	demo := exec.Command("../hack/demo.sh", "--and-away")
	demo.Env = env
	timer := time.AfterFunc(4*limit, func() { _ = demo.Process.Kill() })
	defer timer.Stop()
	out, err := demo.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w := &world{T: t}
	w.says(string(out), "cluster e2ed is up (", "deployment.extensions/nginx-deployment created", "successfully rolled out", "<title>Welcome to nginx!</title>", "Done in ")
	t.Logf("%s", out)
}

package etcd

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// said is a command of the page with what it shows; … stands for anything.
type said struct{ command, shows string }

// conversation is the console blocks of a page, in order.
func conversation(t *testing.T, page string) []said {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []said
	for _, part := range strings.Split(string(text), "```console\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		for line := range strings.Lines(block) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				all = append(all, said{command: strings.TrimSuffix(command, "\n")})
			} else {
				all[len(all)-1].shows += line
			}
		}
	}
	return all
}

func links(m *lab.Machine) {
	m.Sh("for p in etcd etcdctl etcdutl; do ln -sf " + lab.InBin + " /usr/local/bin/$p; done")
}

// TestPage: every command of the page shows what the page shows.
func TestPage(t *testing.T) {
	m := lab.New(t).Machine("m1")
	links(m)
	all := conversation(t, "../../docs/etcd.md")
	// One shell, as one reader's.
	script := "exec 2>&1 < /dev/null\n"
	for i, s := range all {
		script += fmt.Sprintf("echo; echo '@%d@'\n%s\n", i, s.command)
	}
	out, _ := m.Try("bash", "-c", script+"echo; echo '@end@'\nkill $(jobs -p)\nwait")
	for i, s := range all {
		_, got, ok := strings.Cut(out, fmt.Sprintf("@%d@\n", i))
		if !ok {
			t.Fatalf("%s: never came; all that was said:\n%s", s.command, out)
		}
		got = regexp.MustCompile(`(?m)^@(\d+|end)@\n`).Split(got, 2)[0]
		want := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(s.shows)), "…", "(?s:.*)")
		if !regexp.MustCompile("^" + want + "$").MatchString(strings.TrimSpace(got)) {
			t.Errorf("$ %s\n%s\nthe page shows\n%s", s.command, got, s.shows)
		}
	}
	if t.Failed() {
		t.Logf("etcd said:\n%s", m.Sh("tail -n 5 /var/log/etcd.log"))
	}
}

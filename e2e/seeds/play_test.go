package seeds

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/e2e/lab"
	"github.com/sampan-dev/sampan/kit/clock"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, (*testing.M).Run)) }

// several says that a test starts several machines.
func several(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("several machines: make e2e")
	}
}

// patience bounds the wait for what a command shows.
const patience = 90 * time.Second

// player plays scripts on machines. In a script,
//
//	@ HOST...    says where the following lines are typed: on each in turn
//	$ COMMAND    is typed, and goes well; lines that begin with "> " go on with it
//	% COMMAND    is typed once, and goes well
//	! COMMAND    is typed, and fails
//	~ PATTERN    is what the command before shows; it is typed again until it does
//	= PATH HOST  copies a path to another machine, as scp -r does
//
// and other lines are for the reader.
type player struct {
	*testing.T
	machines map[string]*lab.Guided
	where    []*lab.Guided
	at       *lab.Guided // of them, the one that is typed on
}

func newPlayer(t *testing.T, machines ...*lab.Guided) *player {
	p := &player{T: t, machines: map[string]*lab.Guided{}}
	for _, m := range machines {
		p.machines[m.Host] = m
	}
	return p
}

// line is a command of a script with what it is to show.
type line struct {
	number   int
	kind     byte // of @ $ % ! =
	text     string
	patterns []string
}

// parse reads a script.
func parse(text string) (lines []line, err error) {
	for i, l := range strings.Split(text, "\n") {
		if len(l) < 2 || l[1] != ' ' || !strings.ContainsRune("@$%!=~>", rune(l[0])) {
			continue
		}
		rest := l[2:]
		switch l[0] {
		case '@', '$', '%', '!', '=':
			lines = append(lines, line{number: i + 1, kind: l[0], text: rest})
			continue
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("line %d belongs to no command", i+1)
		}
		last := &lines[len(lines)-1]
		if l[0] == '>' {
			last.text += "\n" + rest
			continue
		}
		if _, err := regexp.Compile(rest); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		last.patterns = append(last.patterns, rest)
	}
	return lines, nil
}

// play plays testdata/NAME.
func (p *player) play(name string) {
	p.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		p.Fatal(err)
	}
	lines, err := parse(string(text))
	if err != nil {
		p.Fatalf("%s: %v", name, err)
	}
	for _, l := range lines {
		if l.kind == '@' {
			p.sit(name, l)
			continue
		}
		for _, p.at = range p.where {
			began := clock.Now()
			p.do(name, l)
			p.Logf("%5.1fs %s:%d %s %c %s", clock.Since(began).Seconds(), name, l.number, p.at.Host, l.kind, short(l.text))
		}
	}
}

// sit goes to the machines that a line names.
func (p *player) sit(name string, l line) {
	p.Helper()
	p.where = nil
	for host := range strings.FieldsSeq(l.text) {
		if p.machines[host] == nil {
			p.Fatalf("%s:%d: no machine %q", name, l.number, host)
		}
		p.where = append(p.where, p.machines[host])
	}
}

func (p *player) do(name string, l line) {
	p.Helper()
	where := fmt.Sprintf("%s:%d", name, l.number)
	switch l.kind {
	case '=':
		f := strings.Fields(l.text)
		if len(f) != 2 || p.machines[f[1]] == nil {
			p.Fatalf("%s: want PATH HOST: %q", where, l.text)
		}
		p.at.Copy(p.machines[f[1]], f[0])
	case '!', '%':
		out, err := p.at.Bash(l.text)
		if (err == nil) != (l.kind == '%') {
			p.Fatalf("%s: %s: %v\n%s", where, l.text, err, out)
		}
		for _, e := range l.patterns {
			if !regexp.MustCompile("(?m)" + e).MatchString(out) {
				p.Fatalf("%s: no %q in:\n%s", where, e, out)
			}
		}
	case '$':
		if len(l.patterns) == 0 {
			p.at.Run(l.text)
			return
		}
		p.shows(where, l)
	}
}

// shows types a command until it shows what it is to.
func (p *player) shows(where string, l line) {
	p.Helper()
	var out string
	lab.Within(p, patience, where+": "+short(l.text), func() error {
		var err error
		if out, err = p.at.Bash(l.text); err != nil {
			return fmt.Errorf("%w:\n%s", err, out)
		}
		for _, e := range l.patterns {
			if !regexp.MustCompile("(?m)" + e).MatchString(out) {
				return fmt.Errorf("no %q in:\n%s", e, out)
			}
		}
		return nil
	})
}

// short is the first line of a command.
func short(text string) string {
	first, _, more := strings.Cut(text, "\n")
	if len(first) > 100 {
		first, more = first[:100], true
	}
	if more {
		first += " …"
	}
	return first
}

func TestParse(t *testing.T) {
	lines, err := parse("Words.\n@ a\n$ cat <<EOF\n> one\n> two\n~ ^one$\n! false\n= /x b\n")
	if err != nil || len(lines) != 4 || lines[1].text != "cat <<EOF\none\ntwo" || lines[1].patterns[0] != "^one$" || lines[2].kind != '!' || lines[3].text != "/x b" {
		t.Errorf("%+v, %v", lines, err)
	}
	for _, bad := range []string{"~ x\n", "$ a\n~ (\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if got := short("a\nb"); got != "a …" {
		t.Error(got)
	}
}

// need skips a test where Debian's programs that it is about are missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed: run hack/deps.sh tests", p)
		}
	}
}

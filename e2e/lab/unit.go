package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// unitDirs are where unit files are looked for, the first wins.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"}

// unit is what is understood of a systemd service.
type unit struct {
	Name, Path  string
	Description string
	Kind        string // Type=: simple, notify, forking, oneshot
	Env         []string
	Dir         string
	Before      []string // ExecStartPre
	Start       string
	End         string // ExecStop
	PIDFile     string
	Restart     string
	RestartSec  time.Duration
	WantedBy    []string
}

// loadUnit reads a service's unit file and the drop-ins beside it, over root.
func loadUnit(root, name string) (*unit, error) {
	name = strings.TrimSuffix(name, ".service")
	u := &unit{Name: name, Kind: "simple", RestartSec: 100 * time.Millisecond}
	for _, dir := range unitDirs {
		path := filepath.Join(root, dir, name+".service")
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		u.Path = path
		if err := u.read(root, string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		break
	}
	if u.Path == "" {
		return nil, fmt.Errorf("Unit %s.service not found.", name)
	}
	var dropIns []string
	for _, dir := range unitDirs {
		more, err := filepath.Glob(filepath.Join(root, dir, name+".service.d", "*.conf"))
		if err != nil {
			return nil, err
		}
		dropIns = append(dropIns, more...)
	}
	slices.SortFunc(dropIns, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	for _, path := range dropIns {
		text, err := os.ReadFile(path)
		if err == nil {
			err = u.read(root, string(text))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if u.Start == "" {
		return nil, fmt.Errorf("%s.service: Service has no ExecStart= setting. Refusing.", name)
	}
	return u, nil
}

// read lays the settings of a file over u.
func (u *unit) read(root, text string) error {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Description":
			u.Description = value
		case "Type":
			u.Kind = value
		case "Environment":
			u.Env = append(u.Env, words(value)...)
		case "EnvironmentFile":
			if err := u.environmentFile(root, value); err != nil {
				return err
			}
		case "WorkingDirectory":
			u.Dir = value
		case "ExecStartPre":
			u.Before = append(u.Before, value)
		case "ExecStart": // an empty one clears those before it
			u.Start = value
		case "ExecStop":
			u.End = value
		case "PIDFile":
			u.PIDFile = value
		case "Restart":
			u.Restart = value
		case "RestartSec":
			d, err := time.ParseDuration(value)
			if err != nil {
				d, err = time.ParseDuration(value + "s")
			}
			if err != nil {
				return fmt.Errorf("RestartSec: %w", err)
			}
			u.RestartSec = d
		case "WantedBy":
			u.WantedBy = append(u.WantedBy, strings.Fields(value)...)
		}
	}
	return nil
}

// environmentFile reads variables; one whose name begins with "-" need not exist.
func (u *unit) environmentFile(root, path string) error {
	path, optional := strings.CutPrefix(path, "-")
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil && optional {
		return nil
	}
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		u.Env = append(u.Env, name+"="+unquote(strings.TrimSpace(value)))
	}
	return err
}

// unquote takes the quotes off a value; what follows them is dropped.
func unquote(v string) string {
	for _, q := range []string{`"`, `'`} {
		if rest, ok := strings.CutPrefix(v, q); ok {
			inside, _, _ := strings.Cut(rest, q)
			return inside
		}
	}
	return v
}

// words splits a line as a unit file's: quotes hold a word together.
func words(line string) []string {
	var out []string
	var word strings.Builder
	var quote rune
	in := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, in = r, true
		case r == ' ' || r == '\t':
			if in {
				out = append(out, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}

// command is a setting's command line with the unit's variables: $NAME alone is
// split into words, ${NAME} stays one.
func (u *unit) command(line string) (argv []string, mayFail bool) {
	line, mayFail = strings.CutPrefix(line, "-")
	value := func(name string) string {
		for _, e := range slices.Backward(u.Env) {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return os.Getenv(name)
	}
	for _, w := range words(strings.TrimLeft(line, "@+!:")) {
		if name, ok := strings.CutPrefix(w, "$"); ok && name != "" && !strings.ContainsAny(name, "{}$/.=-") {
			argv = append(argv, words(value(name))...)
			continue
		}
		for {
			before, rest, ok := strings.Cut(w, "${")
			name, after, closed := strings.Cut(rest, "}")
			if !ok || !closed {
				break
			}
			w = before + value(name) + after
		}
		argv = append(argv, w)
	}
	return argv, mayFail
}

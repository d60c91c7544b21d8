package tidy

import (
	"go/ast"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// Limits of size; see the decision in docs/decisions for where they come from.
const (
	fileLines     = 500
	functionLines = 90
)

// homes are the only rooms where a thing may be done, with what to use elsewhere.
var homes = []struct {
	pkg, names string // an imported package and the functions of it, by spaces
	rooms      []string
	instead    string
}{
	{"time", "Now Sleep After Tick NewTimer NewTicker AfterFunc Since Until", []string{"kit/clock/"}, "use kit/clock"},
	{"os", "Exit", []string{"cmd/", "bench/main.go"}, "return an exit code; only cmd ends the process"},
	{"log", "Fatal Fatalf Fatalln", []string{"cmd/", "embedded/pack/"}, "return an error"},
}

// TestHabits checks each file against the house's habits. RATCHET at the root
// lists today's exceptions, "file habit" a line; an entry no longer needed is an
// error too, so the list can only shrink.
func TestHabits(t *testing.T) {
	excused := map[string]bool{}
	if text, err := os.ReadFile("../RATCHET"); err == nil {
		for _, l := range strings.Split(string(text), "\n") {
			if l, _, _ = strings.Cut(l, "#"); strings.TrimSpace(l) != "" {
				excused[strings.Join(strings.Fields(l), " ")] = true
			}
		}
	}
	used := map[string]bool{}
	for _, s := range sources(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		check(s, func(pos token.Pos, habit, advice string) {
			if key := s.name + " " + habit; excused[key] {
				used[key] = true
				return
			}
			t.Errorf("%s: %s: %s", s.fset.Position(pos), habit, advice)
		})
	}
	for key := range excused {
		if !used[key] {
			t.Errorf("RATCHET: %q needs no excuse any more; delete the line", key)
		}
	}
}

func check(s source, complain func(pos token.Pos, habit, advice string)) {
	if n := s.fset.File(s.file.Pos()).LineCount(); n > fileLines {
		complain(s.file.End(), "long-file", "split it by meaning")
	}
	imported := map[string]string{}
	for _, spec := range s.file.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		name := p[strings.LastIndexByte(p, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imported[name] = p
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if s.dir != "kit/run" {
				complain(n.Pos(), "bare-go", "use run.Group.Go or run.Detach, so that the task has a name and an end")
			}
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil {
				complain(n.Pos(), "init", "make it where it is needed; order that nobody wrote down is order nobody knows")
			}
			if n.Body != nil && s.fset.Position(n.End()).Line-s.fset.Position(n.Pos()).Line > functionLines {
				complain(n.Pos(), "long-function", "split it by meaning")
			}
		case *ast.SelectorExpr:
			checkHome(s, n, imported, complain)
		}
		return true
	})
}

func checkHome(s source, n *ast.SelectorExpr, imported map[string]string, complain func(token.Pos, string, string)) {
	x, ok := n.X.(*ast.Ident)
	if !ok {
		return
	}
	for _, h := range homes {
		if imported[x.Name] != h.pkg || !slices.Contains(strings.Fields(h.names), n.Sel.Name) {
			continue
		}
		if !slices.ContainsFunc(h.rooms, func(r string) bool { return strings.HasPrefix(s.name, r) }) {
			complain(n.Pos(), h.pkg+"."+n.Sel.Name, h.instead)
		}
	}
}

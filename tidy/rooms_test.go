package tidy

import (
	"go/ast"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// room is a line of ROOMS.
type room struct {
	name string
	may  []string
}

// parseRooms reads ROOMS. A line may name only rooms above it, so the graph of
// imports has no cycle by construction.
func parseRooms(t *testing.T, text string) (rooms []room, everyone []string) {
	t.Helper()
	seen := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		name, rest, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			continue
		}
		may := slices.DeleteFunc(strings.Fields(rest), func(s string) bool { return s == "-" })
		for _, m := range may {
			if !thirdParty(m) && !seen[m] {
				t.Errorf("ROOMS:%d: %s names %s, which is not above it", i+1, name, m)
			}
		}
		if name == "everyone" {
			everyone = may
			continue
		}
		seen[name] = true
		rooms = append(rooms, room{name, may})
	}
	return rooms, everyone
}

func thirdParty(p string) bool { return strings.Contains(strings.Split(p, "/")[0], ".") }

// roomOf returns the room of a directory: its own line, else its parent's dir/*
// line, else the same for each ancestor.
func roomOf(rooms []room, dir string) (room, bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		for _, want := range []string{d, path.Dir(d) + "/*"} {
			if i := slices.IndexFunc(rooms, func(r room) bool { return r.name == want }); i >= 0 {
				return rooms[i], true
			}
		}
	}
	return room{}, false
}

func TestRooms(t *testing.T) {
	text, err := os.ReadFile("../ROOMS")
	if err != nil {
		t.Fatal(err)
	}
	rooms, everyone := parseRooms(t, string(text))
	introduced := map[string]bool{}
	for _, s := range sources(t) {
		introduced[s.dir] = introduced[s.dir] || (s.file.Doc != nil && !ast.IsGenerated(s.file))
		r, ok := roomOf(rooms, s.dir)
		if !ok {
			t.Errorf("%s: in no room; add a line to ROOMS", s.name)
			continue
		}
		for _, spec := range s.file.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			if !allowed(rooms, r, everyone, s.dir, imp) {
				t.Errorf("%s: room %s may not import %s", s.name, r.name, strings.TrimPrefix(imp, module+"/"))
			}
		}
	}
	for dir, ok := range introduced {
		if !ok {
			t.Errorf("%s: no package comment; say what this room is for", dir)
		}
	}
}

func allowed(rooms []room, r room, everyone []string, dir, imp string) bool {
	if sub, ok := strings.CutPrefix(imp, module+"/"); ok {
		to, ok := roomOf(rooms, sub)
		if !ok {
			return false
		}
		if to.name == r.name { // its own room, unless the room is a row of siblings
			return !strings.HasSuffix(r.name, "/*") || child(r.name, dir) == child(r.name, sub)
		}
		return slices.Contains(r.may, to.name) || slices.Contains(r.may, path.Dir(to.name)+"/*")
	}
	if !thirdParty(imp) {
		return true // standard library
	}
	return slices.ContainsFunc(slices.Concat(everyone, r.may), func(p string) bool {
		return thirdParty(p) && (imp == p || strings.HasPrefix(imp, p+"/"))
	})
}

// child names the sibling that dir belongs to within a dir/* room.
func child(pattern, dir string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(dir, strings.TrimSuffix(pattern, "*")), "/")
	return first
}

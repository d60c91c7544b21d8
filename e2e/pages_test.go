package e2e

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func pages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../docs/*.md")
	if err != nil || len(all) == 0 {
		t.Fatalf("%v %v", all, err)
	}
	decisions, err := filepath.Glob("../docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(append(all, decisions...), "../README.md", "../ARCHITECTURE.md")
}

var inlineCode = regexp.MustCompile("`([^`\n]+)`")

// What pages call by its path is there. Words in capitals stand for a name of
// the reader's, and a star for any.
func TestPagesNameWhatIsThere(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inlineCode.FindAllStringSubmatch(string(text), -1) {
			path := strings.TrimSuffix(m[1], "/")
			room, _, ok := strings.Cut(path, "/")
			if !ok || room == "" || strings.ContainsAny(path, " <>|…{}()=@:") || path != strings.ToLower(path) {
				continue
			}
			if st, err := os.Stat(filepath.Join("..", room)); err != nil || !st.IsDir() {
				continue // not a path of this repository
			}
			if found, err := filepath.Glob(filepath.Join("..", path)); err != nil || len(found) == 0 {
				t.Errorf("%s: `%s` is not there", page, m[1])
			}
		}
	}
}

// Go in pages is Go: a reader copies it.
func TestPagesGoIsGo(t *testing.T) {
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(text), "```go\n")[1:] {
			code, _, _ := strings.Cut(part, "```")
			src := code
			if !strings.Contains(src, "package ") {
				src = "package page\n" + src
			}
			if _, err := parser.ParseFile(token.NewFileSet(), page, src, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s: block %d: %v\n%s", page, i+1, err, code)
			}
		}
	}
}

package watchfile

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/kit/run"
)

func TestChangesAreSeen(t *testing.T) {
	dir := t.TempDir()
	// As a mounted secret: the file is a link into a directory that is a link.
	write := func(version, text string) {
		t.Helper()
		sub := filepath.Join(dir, version)
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, "tmp"))
		if err := os.Symlink(version, filepath.Join(dir, "tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	write("v1", "one")
	link := filepath.Join(dir, "file")
	if err := os.Symlink("data/file", link); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	os.WriteFile(plain, []byte("a"), 0o600)
	seen := make(chan struct{}, 10)
	g := run.New(t.Context())
	g.Go("watch", func(ctx context.Context) error { return Run(ctx, func() { seen <- struct{}{} }, link, plain) })
	defer func() { g.Stop(); g.Wait() }()
	await := func(what string, change func()) {
		t.Helper()
		for range 100 { // the watch may begin after the first change
			change()
			select {
			case <-seen:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
		t.Fatal("not seen:", what)
	}
	n := 1
	await("the link's target", func() { n++; write(string(rune('a'+n)), "more") })
	await("a write", func() { n++; os.WriteFile(plain, make([]byte, n), 0o600) })
}

// TestNothingIsMissedAtTheStart: whoever read a file before he watched it learns
// of a change that came in between.
func TestNothingIsMissedAtTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	read := func() string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	os.WriteFile(file, []byte("one"), 0o600)
	if read() != "one" {
		t.Fatal("not written")
	}
	os.WriteFile(file, []byte("two"), 0o600)
	seen := make(chan string, 10)
	g := run.New(t.Context())
	g.Go("watch", func(ctx context.Context) error { return Run(ctx, func() { seen <- read() }, file) })
	defer func() { g.Stop(); g.Wait() }()
	select {
	case got := <-seen:
		if got != "two" {
			t.Errorf("read %q", got)
		}
	case <-time.After(time.Minute):
		t.Error("never told")
	}
}

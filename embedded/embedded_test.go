package embedded

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

func packed(t *testing.T, programs map[string][]byte) fstest.MapFS {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := fstest.MapFS{"bin/README": {Data: []byte("not a program")}}
	for name, data := range programs {
		out["bin/"+name+suffix] = &fstest.MapFile{Data: enc.EncodeAll(data, nil)}
	}
	return out
}

func TestOpenGivesTheProgramBack(t *testing.T) {
	want := bytes.Repeat([]byte("shim"), 100_000)
	from := packed(t, map[string][]byte{"sampan-shim": want, "pause": []byte("p")})
	if got := files(from); !slices.Equal(got, []string{"pause", "sampan-shim"}) {
		t.Errorf("files = %q", got)
	}
	r, err := open(from, "sampan-shim")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestBinaryWithoutProgramsSaysWhatToRun(t *testing.T) {
	empty := packed(t, nil)
	_, err := open(empty, "pause")
	if !errors.Is(err, ErrNotBuilt) {
		t.Errorf("open = %v", err)
	}
	if err := install(empty, t.TempDir(), []string{"pause"}); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("install = %v", err)
	}
}

func TestInstallReplacesOnlyWhatChanged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	if err := install(packed(t, map[string][]byte{"a": []byte("one"), "b": []byte("one")}), dir, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	before := map[string]os.FileInfo{}
	for _, name := range []string{"a", "b"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
		before[name] = st
	}
	if err := install(packed(t, map[string][]byte{"a": []byte("one"), "b": []byte("two")}), dir, []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]bool{"a": false, "b": true} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(st, before[name]) == changed {
			t.Errorf("%s: replaced = %v, want %v", name, !changed, changed)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("directory holds %v, %v: want the two programs and their marks only", entries, err)
	}
	// A mark is no proof that the program beside it is whole.
	if err := os.Truncate(filepath.Join(dir, "a"), 1); err != nil {
		t.Fatal(err)
	}
	if err := install(packed(t, map[string][]byte{"a": []byte("one")}), dir, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(got) != "one" {
		t.Errorf("a cut program became %q, %v; want it whole again", got, err)
	}
}

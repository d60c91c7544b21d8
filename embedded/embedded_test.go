package embedded

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

func bundle(t *testing.T, programs map[string][]byte) fstest.MapFS {
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
	from := bundle(t, map[string][]byte{"sampan-shim": want, "pause": []byte("p")})
	if got := files(from); !slices.Equal(got, []string{"pause", "sampan-shim"}) {
		t.Errorf("files = %q", got)
	}
	r, err := open(from, "", "sampan-shim")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestBinaryWithoutProgramsSaysWhatToRun(t *testing.T) {
	empty := bundle(t, nil)
	_, err := open(empty, "", "pause")
	if !errors.Is(err, ErrNotBuilt) {
		t.Errorf("open = %v", err)
	}
	if err := install(empty, t.TempDir(), []string{"pause"}); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("install = %v", err)
	}
}

func TestInstallReplacesOnlyWhatChanged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	if err := install(bundle(t, map[string][]byte{"a": []byte("one"), "b": []byte("one")}), dir, []string{"a", "b"}); err != nil {
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
	if err := install(bundle(t, map[string][]byte{"a": []byte("one"), "b": []byte("two")}), dir, []string{"a", "b"}); err != nil {
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
	if err := install(bundle(t, map[string][]byte{"a": []byte("one")}), dir, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(got) != "one" {
		t.Errorf("a cut program became %q, %v; want it whole again", got, err)
	}
}

func TestProgramOverABase(t *testing.T) {
	base := randomBytes(1 << 20)
	program := append(slices.Clone(base[1<<19:]), "and its own"...)
	from := bundle(t, map[string][]byte{"sampan-base": base})
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderDictRaw(Dictionary, base), zstd.WithWindowSize(Window))
	if err != nil {
		t.Fatal(err)
	}
	data := enc.EncodeAll(program, nil)
	if len(data) > len(program)/100 {
		t.Errorf("a program that repeats its base takes %d of %d bytes", len(data), len(program))
	}
	from["bin/sampan-program+sampan-base"+suffix] = &fstest.MapFile{Data: data}
	if got := files(from); !slices.Equal(got, []string{"sampan-base", "sampan-program"}) {
		t.Errorf("files = %q", got)
	}
	dir := t.TempDir()
	if err := install(from, dir, []string{"sampan-program"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "sampan-program")); err != nil || !bytes.Equal(got, program) {
		t.Errorf("installed %d bytes, %v; want %d", len(got), err, len(program))
	}
	// An installed base serves as well, unless its bytes are another's.
	if err := install(from, dir, []string{"sampan-base"}); err != nil {
		t.Fatal(err)
	}
	if got, err := whole(from, dir, "sampan-program"); err != nil || !bytes.Equal(got, program) {
		t.Errorf("over the installed base: %d bytes, %v; want %d", len(got), err, len(program))
	}
	delete(from, "bin/sampan-base"+suffix)
	if err := install(from, t.TempDir(), []string{"sampan-program"}); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("install without its base = %v", err)
	}
}

// TestOwnProgramsUnpack reads whatever this tree has built.
func TestOwnProgramsUnpack(t *testing.T) {
	if len(Files()) == 0 {
		t.Skip("nothing built: make build")
	}
	for _, name := range Files() {
		r, err := Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(r, head); err != nil || string(head) != "\x7fELF" {
			t.Errorf("%s begins with %q, %v; want a program", name, head, err)
		}
		r.Close()
	}
}

func randomBytes(n int) []byte {
	out := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(out)
	return out
}

// Package embedded carries the small programs that are executed once per pod.
//
// Job: hold them compressed inside the binary and put them on disk where
// containerd and the container network interface look for them.
//
// Not its job: what the programs do (cmd/sampan-shim, cmd/sampan-cni, pause/),
// and building them (build.sh, before the binary itself is built).
//
// Invariants: the package compiles in a clean clone, where nothing was built;
// then Files is empty and every use says what to run. A program on disk is
// whole or absent, never half written.
package embedded

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// The programs' names.
const (
	Shim  = "sampan-shim"
	CNI   = "sampan-cni"
	Pause = "pause"
)

const suffix = ".zst"

//go:embed bin
var bin embed.FS

// ErrNotBuilt is returned when the binary was built before its programs were.
var ErrNotBuilt = errors.New("built without embedded programs: run make build")

// Files returns the names of the programs in this binary, sorted.
func Files() []string { return files(bin) }

func files(from fs.FS) []string {
	entries, err := fs.ReadDir(from, "bin")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok {
			names = append(names, name)
		}
	}
	return names
}

// Open returns the bytes of the program called name.
func Open(name string) (io.ReadCloser, error) { return open(bin, name) }

func open(from fs.FS, name string) (io.ReadCloser, error) {
	f, err := from.Open("bin/" + name + suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("embedded program %s: %w", name, ErrNotBuilt)
	}
	if err != nil {
		return nil, err
	}
	// One goroutine and no look-ahead: programs are read once, at start.
	r, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("embedded program %s: %w", name, err)
	}
	return reader{r, f}, nil
}

type reader struct {
	*zstd.Decoder
	file io.Closer
}

func (r reader) Close() error {
	r.Decoder.Close()
	return r.file.Close()
}

// Install writes every program into dir, executable. One that is already there
// with the same bytes is left alone, so that running shims keep their file.
func Install(dir string) error { return install(bin, dir) }

func install(from fs.FS, dir string) error {
	names := files(from)
	if len(names) == 0 {
		return fmt.Errorf("install into %s: %w", dir, ErrNotBuilt)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		if err := installOne(from, name, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("install %s into %s: %w", name, dir, err)
		}
	}
	return nil
}

func installOne(from fs.FS, name, target string) error {
	r, err := open(from, name)
	if err != nil {
		return err
	}
	defer r.Close()
	want, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if same(target, want) {
		return os.Chmod(target, 0o755)
	}
	// A running program's file cannot be opened for writing, but its name can
	// be given to another file.
	tmp, err := os.CreateTemp(filepath.Dir(target), "."+name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, bytes.NewReader(want))
	if err := errors.Join(err, tmp.Chmod(0o755), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), target)
}

// same says whether the file at path holds exactly want.
func same(path string, want []byte) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(want)) {
		return false
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false
	}
	sum := sha256.Sum256(want)
	return bytes.Equal(h.Sum(nil), sum[:])
}

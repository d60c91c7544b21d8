// Package embedded carries the programs whose memory counts: those executed
// once per pod, and those that run on every node beside the big binary.
//
// Job: hold them compressed inside the binary, put them on disk where others
// look for them, and become one of them.
//
// Not its job: what the programs do (cmd/sampan-*, pause/), and building them
// (build.sh, before the binary itself is built).
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
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// The programs' names.
const (
	Shim       = "sampan-shim"
	CNI        = "sampan-cni"
	Init       = "sampan-init"
	Containerd = "sampan-containerd"
	CoreDNS    = "sampan-coredns"
	Kubectl    = "sampan-kubectl"
	Pause      = "pause"
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

// Install writes the named programs into dir, executable. One that is already
// there with the same bytes is left alone, so that running shims keep their file.
func Install(dir string, names ...string) error { return install(bin, dir, names) }

func install(from fs.FS, dir string, names []string) error {
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
	packed, err := fs.ReadFile(from, "bin/"+name+suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotBuilt
	}
	if err != nil {
		return err
	}
	mark, sum := filepath.Join(filepath.Dir(target), "."+name+".sum"), sha256.Sum256(packed)
	if installed(target, mark, sum[:]) {
		return os.Chmod(target, 0o755)
	}
	r, err := open(from, name)
	if err != nil {
		return err
	}
	defer r.Close()
	// The mark speaks of the file it lies beside: it goes first and comes last.
	if err := os.RemoveAll(mark); err != nil {
		return err
	}
	// A running program's file cannot be opened for writing, but its name can
	// be given to another file.
	tmp, err := os.CreateTemp(filepath.Dir(target), "."+name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	n, err := io.Copy(tmp, r)
	if err := errors.Join(err, tmp.Chmod(0o755), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), target); err != nil {
		return err
	}
	return os.WriteFile(mark, markText(sum[:], n), 0o644)
}

// markText says which packed bytes a program came from and how long it is.
func markText(sum []byte, size int64) []byte { return fmt.Appendf(nil, "%x %d\n", sum, size) }

// installed says whether target is what the packed bytes of sum unpack to,
// without unpacking them: that takes longer than a cluster takes to start.
func installed(target, mark string, sum []byte) bool {
	st, err := os.Stat(target)
	if err != nil {
		return false
	}
	text, err := os.ReadFile(mark)
	return err == nil && bytes.Equal(text, markText(sum, st.Size()))
}

// Dir is where a node keeps the programs.
const Dir = "/var/lib/sampan/bin"

// Exec becomes the program called name, with args after the name the field
// knows it by. It returns only on failure. Who may not write to Dir gets a copy among their own caches.
func Exec(name string, args []string) error {
	dir := Dir
	if os.Geteuid() != 0 {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("run %s: %w", name, err)
		}
		dir = filepath.Join(cache, "sampan", "bin")
	}
	if err := Install(dir, name); err != nil {
		return err
	}
	err := syscall.Exec(filepath.Join(dir, name), append([]string{strings.TrimPrefix(name, "sampan-")}, args...), os.Environ())
	return fmt.Errorf("run %s: %w", name, err)
}

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
//
// Programs of one language and often one library repeat each other's bytes, so
// one may be packed over another, its base: bin/NAME+BASE.zst, where the base's
// plain bytes are the dictionary (RFC 8878, raw content). That takes a quarter off
// what the binary carries, and costs unpacking the base first, once per machine.
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
	"path"
	"path/filepath"
	"slices"
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

const (
	suffix = ".zst"
	over   = "+" // between a program's name and its base's
	// Dictionary is the identity under which a base is a frame's dictionary.
	Dictionary = 1
	// Window is how far back a packed program may point: further than any is long.
	Window = 128 << 20
)

//go:embed bin
var bin embed.FS

// ErrNotBuilt is returned when the binary was built before its programs were.
var ErrNotBuilt = errors.New("built without embedded programs: run make build")

// Files returns the names of the programs in this binary, sorted.
func Files() []string { return files(bin) }

func files(from fs.FS) []string {
	var names []string
	for name := range carried(from) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// packed is where a program lies and which program it is packed over, if any.
type packed struct{ path, base string }

func carried(from fs.FS) map[string]packed {
	entries, err := fs.ReadDir(from, "bin")
	if err != nil {
		return nil
	}
	out := map[string]packed{}
	for _, e := range entries {
		if stem, ok := strings.CutSuffix(e.Name(), suffix); ok {
			name, base, _ := strings.Cut(stem, over)
			out[name] = packed{path.Join("bin", e.Name()), base}
		}
	}
	return out
}

// Open returns the bytes of the program called name.
func Open(name string) (io.ReadCloser, error) { return open(bin, "", name) }

// open reads a base from dir if it was put there, which is quicker than unpacking it.
func open(from fs.FS, dir, name string) (io.ReadCloser, error) {
	p, ok := carried(from)[name]
	if !ok {
		return nil, fmt.Errorf("embedded program %s: %w", name, ErrNotBuilt)
	}
	// One goroutine and no look-ahead: programs are read once, at start.
	opts := []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(Window)}
	if p.base != "" {
		base, err := whole(from, dir, p.base)
		if err != nil {
			return nil, fmt.Errorf("embedded program %s: base: %w", name, err)
		}
		opts = append(opts, zstd.WithDecoderDictRaw(Dictionary, base))
	}
	f, err := from.Open(p.path)
	if err != nil {
		return nil, fmt.Errorf("embedded program %s: %w", name, err)
	}
	r, err := zstd.NewReader(f, opts...)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("embedded program %s: %w", name, err)
	}
	return reader{r, f}, nil
}

func whole(from fs.FS, dir, name string) ([]byte, error) {
	if sum, err := identity(from, name); dir != "" && err == nil && installed(filepath.Join(dir, name), sum) {
		return os.ReadFile(filepath.Join(dir, name))
	}
	r, err := open(from, dir, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
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
	sum, err := identity(from, name)
	if err != nil {
		return err
	}
	if installed(target, sum) {
		return os.Chmod(target, 0o755)
	}
	r, err := open(from, filepath.Dir(target), name)
	if err != nil {
		return err
	}
	defer r.Close()
	mark := markOf(target)
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
	return os.WriteFile(mark, markText(sum, n), 0o644)
}

// identity is the hash of all packed bytes that name is unpacked from.
func identity(from fs.FS, name string) ([]byte, error) {
	programs, h := carried(from), sha256.New()
	for name != "" {
		p, ok := programs[name]
		if !ok {
			return nil, ErrNotBuilt
		}
		data, err := fs.ReadFile(from, p.path)
		if err != nil {
			return nil, err
		}
		h.Write(data)
		delete(programs, name) // a base over itself would never end
		name = p.base
	}
	return h.Sum(nil), nil
}

// markText says which packed bytes a program came from and how long it is.
func markText(sum []byte, size int64) []byte { return fmt.Appendf(nil, "%x %d\n", sum, size) }

// markOf is the file that speaks of target.
func markOf(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".sum")
}

// installed says whether target is what the packed bytes of sum unpack to,
// without unpacking them: that takes longer than a cluster takes to start.
func installed(target string, sum []byte) bool {
	st, err := os.Stat(target)
	if err != nil {
		return false
	}
	text, err := os.ReadFile(markOf(target))
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

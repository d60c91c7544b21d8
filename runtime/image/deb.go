package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// DebOptions describe an image made of Debian packages.
type DebOptions struct {
	Names    []string
	Packages []string // with all they depend on
	Without  []string // dependencies to leave out: needed only to install packages
	Entries  []Entry  // files, directories and links on top; nothing runs at install time
	// Applets names a multi-call program in the image; it is asked for its
	// applets by --list, and each becomes a link beside it.
	Applets string
	// Over are files on top that may change: a layer of their own, not cached.
	Over    []Entry
	Config  Config
	Cache   string // where packages and finished layers are kept
	Refresh bool   // ask for newer packages than the cache has
}

// FromDeb makes an image of Debian packages. Packages are unpacked, not
// installed: their scripts do not run, so what a script would set up belongs in
// Entries. It needs apt and dpkg, but no privileges.
func FromDeb(ctx context.Context, o DebOptions) (Image, error) {
	var layers []v1.Layer
	if len(o.Packages) > 0 {
		l, err := o.layer(ctx)
		if err != nil {
			return Image{}, fmt.Errorf("image from packages %s: %w", strings.Join(o.Packages, " "), err)
		}
		layers = append(layers, l)
	}
	if len(o.Over) > 0 {
		l, err := NewLayer(o.Over)
		if err != nil {
			return Image{}, fmt.Errorf("image from files: %w", err)
		}
		layers = append(layers, l)
	}
	return New(o.Config, o.Names, layers...)
}

// layer returns the finished layer from the cache, or makes it.
func (o DebOptions) layer(ctx context.Context) (v1.Layer, error) {
	key, err := o.key()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.Cache, "layers", key+".tar")
	if !o.Refresh {
		if l, err := tarLayer(file); err == nil {
			return l, nil
		}
	}
	debs, err := o.fetch(ctx)
	if err != nil {
		return nil, err
	}
	entries := append(minimalRoot(), mergedRoot()...)
	for _, deb := range debs {
		more, err := unpack(ctx, deb)
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	links, err := o.applets(ctx, entries)
	if err != nil {
		return nil, err
	}
	// Applets give way to real programs, and what the caller says counts most.
	l, err := NewLayer(slices.Concat(links, entries, o.Entries))
	if err != nil {
		return nil, err
	}
	if err := save(l, file); err != nil {
		return nil, err
	}
	return tarLayer(file)
}

// key names everything that makes the layer what it is.
func (o DebOptions) key() (string, error) {
	data, err := json.Marshal([]any{o.Packages, o.Without, o.Entries, o.Applets, 1})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%s-%x", o.Packages[0], sum[:8]), nil
}

func save(l v1.Layer, file string) error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// fetch downloads the packages and returns their files. apt itself decides
// what they depend on, as if nothing were installed, and checks what it gets.
func (o DebOptions) fetch(ctx context.Context) ([]string, error) {
	archives, err := filepath.Abs(filepath.Join(o.Cache, "debs"))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(archives, "partial"), 0o755); err != nil {
		return nil, err
	}
	common := []string{
		"-qq", "-y", "--no-install-recommends", "-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1",
		"-o", "Dir::Cache::Archives=" + archives, "-o", "APT::Sandbox::User=root", "install",
	}
	list, err := apt(ctx, slices.Concat(common, []string{"--print-uris", "--reinstall"}, o.Packages)...)
	if err != nil {
		// A new computer has no package lists yet.
		if _, upErr := apt(ctx, "-qq", "update"); upErr != nil {
			return nil, errors.Join(err, upErr)
		}
		if list, err = apt(ctx, slices.Concat(common, []string{"--print-uris"}, o.Packages)...); err != nil {
			return nil, err
		}
	}
	if _, err := apt(ctx, slices.Concat(common, []string{"--download-only"}, o.Packages)...); err != nil {
		return nil, err
	}
	// What is in the cache already is not listed, so the closure is asked for
	// against an empty cache.
	if list, err = apt(ctx, slices.Concat(common, []string{"--print-uris", "-o", "Dir::Cache::Archives=/nonexistent"}, o.Packages)...); err != nil {
		return nil, err
	}
	var files []string
	for _, name := range parseURIs(list) {
		if pkg, _, _ := strings.Cut(name, "_"); !slices.Contains(o.Without, pkg) {
			files = append(files, filepath.Join(archives, name))
		}
	}
	return files, nil
}

func apt(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("apt-get: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// parseURIs reads the file names, sorted, from apt-get --print-uris, whose
// lines are 'URI' FILE SIZE HASH.
func parseURIs(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) >= 3 && strings.HasPrefix(line, "'") && strings.HasSuffix(fields[1], ".deb") {
			names = append(names, fields[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// mergedRoot are the links from the old places to the new ones, as on Debian
// since version 12; packages' files are put in the new.
func mergedRoot() []Entry {
	var out []Entry
	for _, dir := range mergedDirs {
		out = append(out, Entry{Path: "/usr/" + dir, Dir: true}, Entry{Path: "/" + dir, Link: "usr/" + dir})
	}
	return out
}

var mergedDirs = []string{"bin", "sbin", "lib", "lib64"}

func merged(p string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if slices.Contains(mergedDirs, first) {
		return "/usr" + p
	}
	return p
}

// unwanted are paths that no program in a container reads.
var unwanted = []string{
	"/usr/share/doc", "/usr/share/man", "/usr/share/info", "/usr/share/locale", "/usr/share/lintian",
	"/usr/share/bug", "/usr/share/doc-base", "/usr/share/common-licenses", "/usr/share/bash-completion", "/usr/share/menu",
}

func wanted(p string) bool {
	return !slices.ContainsFunc(unwanted, func(dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") })
}

// unpack reads a package's files. Owners and modes come from the package, so
// no privileges are needed.
func unpack(ctx context.Context, deb string) ([]Entry, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	entries, err := readTar(out)
	_, _ = io.Copy(io.Discard, out)
	if waitErr := cmd.Wait(); waitErr != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(deb), waitErr, strings.TrimSpace(errs.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(deb), err)
	}
	return entries, nil
}

func readTar(r io.Reader) ([]Entry, error) {
	var out []Entry
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		e := Entry{Path: merged(path.Clean("/" + h.Name)), Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid}
		if !wanted(e.Path) || e.Path == "/usr" && h.Typeflag != tar.TypeDir {
			continue
		}
		switch h.Typeflag {
		case tar.TypeDir:
			e.Dir = true
		case tar.TypeSymlink:
			e.Link = h.Linkname
		case tar.TypeLink:
			e.HardLink = merged(path.Clean("/" + h.Linkname))
		case tar.TypeReg:
			if e.Data, err = io.ReadAll(t); err != nil {
				return nil, err
			}
		default:
			continue // devices and pipes are the runtime's to make
		}
		out = append(out, e)
	}
}

// applets asks the multi-call program for its names by running it here.
func (o DebOptions) applets(ctx context.Context, entries []Entry) ([]Entry, error) {
	if o.Applets == "" {
		return nil, nil
	}
	at := slices.IndexFunc(entries, func(e Entry) bool { return e.Path == merged(o.Applets) })
	if at < 0 {
		return nil, fmt.Errorf("no package has %s", o.Applets)
	}
	tmp, err := os.MkdirTemp("", "sampan-applets-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	program := filepath.Join(tmp, path.Base(o.Applets))
	if err := os.WriteFile(program, entries[at].Data, 0o755); err != nil {
		return nil, err
	}
	names, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", o.Applets, err)
	}
	var links []Entry
	for n := range strings.FieldsSeq(string(names)) {
		p := path.Join(path.Dir(entries[at].Path), n)
		if p != entries[at].Path {
			links = append(links, Entry{Path: p, Link: path.Base(o.Applets)})
		}
	}
	return links, nil
}

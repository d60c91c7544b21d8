package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Entry is one file, directory or link of a layer.
type Entry struct {
	Path     string // absolute, inside the image
	Mode     int64  // permissions with set-id and sticky bits; 0: 0755 for directories, 0644 for files
	UID, GID int
	Dir      bool
	Link     string // the target, for a symbolic link
	HardLink string // the other path, for a hard link
	Data     []byte // a file's contents …
	Source   string // … or where they are on this computer
}

// layer is an uncompressed tar archive that is put together while it is read.
type layer struct {
	diffID v1.Hash
	size   int64
	parts  []part
}

// part is a run of bytes: literal, or those of a file.
type part struct {
	literal []byte
	file    string
	size    int64
}

// NewLayer makes a layer of entries. Directories that nobody named are added;
// of two entries with one path the later counts.
func NewLayer(entries []Entry) (v1.Layer, error) {
	l := &layer{}
	for _, e := range complete(entries) {
		if err := l.add(e); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", e.Path, err)
		}
	}
	l.literal(make([]byte, 1024)) // the archive's end
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	h := sha256.New()
	if l.size, err = io.Copy(h, r); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	l.diffID = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return l, nil
}

// complete cleans paths, adds missing parents, removes doubles and sorts, which
// puts every directory before what is in it.
func complete(entries []Entry) []Entry {
	byPath := map[string]Entry{}
	for _, e := range entries {
		e.Path = path.Clean("/" + e.Path)
		if e.Path != "/" {
			byPath[e.Path] = e
		}
	}
	for _, e := range entries {
		for dir := path.Dir(path.Clean("/" + e.Path)); dir != "/"; dir = path.Dir(dir) {
			if _, ok := byPath[dir]; !ok {
				byPath[dir] = Entry{Path: dir, Dir: true}
			}
		}
	}
	out := make([]Entry, 0, len(byPath))
	for _, e := range byPath {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		// A hard link comes after all files, hence after its target.
		if hard := boolInt(a.HardLink != "") - boolInt(b.HardLink != ""); hard != 0 {
			return hard
		}
		return strings.Compare(a.Path, b.Path)
	})
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (l *layer) add(e Entry) error {
	h := &tar.Header{
		Name: strings.TrimPrefix(e.Path, "/"), Mode: e.Mode, Uid: e.UID, Gid: e.GID,
		ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: int64(len(e.Data)),
	}
	switch {
	case e.Dir:
		h.Typeflag, h.Name, h.Size = tar.TypeDir, h.Name+"/", 0
	case e.Link != "":
		h.Typeflag, h.Linkname, h.Mode, h.Size = tar.TypeSymlink, e.Link, 0o777, 0
	case e.HardLink != "":
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, strings.TrimPrefix(path.Clean(e.HardLink), "/"), 0
	case e.Source != "":
		st, err := os.Stat(e.Source)
		if err != nil {
			return err
		}
		h.Size = st.Size()
	}
	if h.Mode == 0 {
		h.Mode = 0o644
		if e.Dir {
			h.Mode = 0o755
		}
	}
	var head bytes.Buffer
	// A writer of its own for every entry: only its header is wanted here.
	if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
		return err
	}
	l.literal(head.Bytes())
	if h.Size == 0 {
		return nil
	}
	if e.Source != "" {
		l.parts = append(l.parts, part{file: e.Source, size: h.Size})
	} else {
		l.literal(e.Data)
	}
	if rest := h.Size % 512; rest != 0 {
		l.literal(make([]byte, 512-rest))
	}
	return nil
}

func (l *layer) literal(b []byte) { l.parts = append(l.parts, part{literal: b, size: int64(len(b))}) }

// Uncompressed returns the archive's bytes; files are opened one at a time.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	return &partReader{left: l.parts}, nil
}

func (l *layer) Compressed() (io.ReadCloser, error)  { return l.Uncompressed() }
func (l *layer) Digest() (v1.Hash, error)            { return l.diffID, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }

type partReader struct {
	left []part
	cur  io.Reader
	file *os.File
	want int64
}

func (r *partReader) Read(p []byte) (int, error) {
	for {
		if r.cur == nil {
			if len(r.left) == 0 {
				return 0, io.EOF
			}
			if err := r.next(); err != nil {
				return 0, err
			}
		}
		n, err := r.cur.Read(p)
		r.want -= int64(n)
		if err == io.EOF {
			if r.want != 0 {
				return n, fmt.Errorf("%s changed while it was read", r.file.Name())
			}
			r.Close()
			r.cur = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

func (r *partReader) next() error {
	p := r.left[0]
	r.left, r.want = r.left[1:], p.size
	if p.file == "" {
		r.cur = bytes.NewReader(p.literal)
		return nil
	}
	f, err := os.Open(p.file)
	if err != nil {
		return err
	}
	r.file, r.cur = f, io.LimitReader(f, p.size)
	return nil
}

func (r *partReader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// tarLayer is a layer that lies on disk as a finished archive.
func tarLayer(file string) (v1.Layer, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, err
	}
	return &layer{
		diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))},
		size:   n, parts: []part{{file: file, size: n}},
	}, nil
}

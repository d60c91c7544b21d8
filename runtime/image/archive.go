package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// The annotations by which an archive's index names its images.
const (
	nameAnnotation = "io.containerd.image.name"
	refAnnotation  = "org.opencontainers.image.ref.name"
)

// dockerManifest is one line of the file that `docker load` reads.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes images as one archive that is both an OCI layout and what
// docker load reads. Layers that several images share are written once.
func Write(w io.Writer, images ...Image) error {
	a := archiver{tar: tar.NewWriter(w), seen: map[v1.Hash]bool{}}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	var docker []dockerManifest
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, img := range images {
		d, desc, err := a.image(img)
		if err != nil {
			return fmt.Errorf("write image %v: %w", img.Names, err)
		}
		docker = append(docker, d)
		for _, n := range img.Names {
			desc := desc
			desc.Annotations = map[string]string{nameAnnotation: n, refAnnotation: tagOf(n)}
			index.Manifests = append(index.Manifests, desc)
		}
	}
	for file, content := range map[string]any{"index.json": index, "manifest.json": docker} {
		data, err := json.Marshal(content)
		if err != nil {
			return err
		}
		a.last = append(a.last, lastFile{file, data})
	}
	slices.SortFunc(a.last, func(x, y lastFile) int { return len(x.name) - len(y.name) })
	for _, f := range a.last {
		if err := a.file(f.name, f.data); err != nil {
			return err
		}
	}
	return a.tar.Close()
}

func tagOf(full string) string {
	ref, err := name.ParseReference(full)
	if err != nil {
		return full
	}
	return ref.Identifier()
}

type lastFile struct {
	name string
	data []byte
}

type archiver struct {
	tar  *tar.Writer
	seen map[v1.Hash]bool
	last []lastFile
}

func (a *archiver) file(name string, data []byte) error {
	return a.stream(name, int64(len(data)), bytes.NewReader(data))
}

func (a *archiver) stream(name string, size int64, r io.Reader) error {
	h := &tar.Header{Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(a.tar, r)
	return err
}

func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func (a *archiver) image(img Image) (dockerManifest, v1.Descriptor, error) {
	d := dockerManifest{RepoTags: img.Names}
	var desc v1.Descriptor
	layers, err := img.Layers()
	if err != nil {
		return d, desc, err
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return d, desc, err
		}
		d.Layers = append(d.Layers, blob(h))
		if err := a.layer(h, l); err != nil {
			return d, desc, err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return d, desc, err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return d, desc, err
	}
	configHash, err := img.ConfigName()
	if err != nil {
		return d, desc, err
	}
	digest, err := img.Digest()
	if err != nil {
		return d, desc, err
	}
	d.Config = blob(configHash)
	kind, err := img.MediaType()
	if err != nil {
		return d, desc, err
	}
	desc = v1.Descriptor{MediaType: kind, Size: int64(len(manifest)), Digest: digest}
	return d, desc, errors.Join(a.bytes(configHash, config), a.bytes(digest, manifest))
}

func (a *archiver) bytes(h v1.Hash, data []byte) error {
	if a.seen[h] {
		return nil
	}
	a.seen[h] = true
	return a.file(blob(h), data)
}

func (a *archiver) layer(h v1.Hash, l v1.Layer) error {
	if a.seen[h] {
		return nil
	}
	a.seen[h] = true
	size, err := l.Size()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	return a.stream(blob(h), size, r)
}

// Archive is an archive of images, opened for reading.
type Archive struct {
	Images []Image
	dir    string
}

// Close removes what reading the archive needed; its Images end with it.
func (a *Archive) Close() error { return os.RemoveAll(a.dir) }

// Open reads an archive, plain or compressed with gzip or zstd: an OCI layout
// or what docker save writes.
func Open(file string) (*Archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("image archive %s: %w", file, err)
	}
	return a, nil
}

func read(r io.Reader) (*Archive, error) {
	plain, err := Decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	dir, err := os.MkdirTemp("", "sampan-images-")
	if err != nil {
		return nil, err
	}
	a := &Archive{dir: dir}
	whole := filepath.Join(dir, "archive.tar")
	err = func() error {
		if err := spool(plain, whole); err != nil {
			return err
		}
		isLayout, err := extractLayout(whole, filepath.Join(dir, "layout"))
		if err != nil {
			return err
		}
		if isLayout {
			return a.readLayout(filepath.Join(dir, "layout"))
		}
		return a.readDocker(whole)
	}()
	if err == nil && len(a.Images) == 0 {
		err = errors.New("no image in it")
	}
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func spool(r io.Reader, file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// Decompress returns r's plain bytes, whether it is compressed with gzip, with
// zstd or not at all.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(b)
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// extractLayout writes an OCI layout's files into dir, if the archive is one.
func extractLayout(file, dir string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	isLayout := false
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if err == io.EOF {
			return isLayout, nil
		}
		if err != nil {
			return false, fmt.Errorf("not a tar archive: %w", err)
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) {
			continue
		}
		inBlobs, _ := filepath.Match("blobs/*/*", name)
		if name != "index.json" && name != "oci-layout" && !inBlobs {
			continue
		}
		isLayout = isLayout || name == "index.json"
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return false, err
		}
		if err := spool(t, target); err != nil {
			return false, err
		}
	}
}

func (a *Archive) readLayout(dir string) error {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	at := map[v1.Hash]int{}
	for _, d := range manifest.Manifests {
		var names []string
		full := d.Annotations[nameAnnotation]
		if full == "" {
			full = d.Annotations[refAnnotation]
		}
		if full != "" {
			if names, err = Normalize(full); err != nil {
				return err
			}
		}
		if i, ok := at[d.Digest]; ok {
			a.Images[i].Names = append(a.Images[i].Names, names...)
			continue
		}
		if !d.MediaType.IsImage() {
			continue // indexes of several platforms and attestations
		}
		img, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		at[d.Digest] = len(a.Images)
		a.Images = append(a.Images, Image{Names: names, Image: img})
	}
	return nil
}

func (a *Archive) readDocker(file string) error {
	open := func() (io.ReadCloser, error) { return os.Open(file) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return fmt.Errorf("neither an OCI layout nor a docker archive: %w", err)
	}
	for i, d := range manifest {
		var tag *name.Tag
		var names []string
		if len(d.RepoTags) > 0 {
			t, err := name.NewTag(d.RepoTags[0])
			if err != nil {
				return err
			}
			tag = &t
			if names, err = Normalize(d.RepoTags...); err != nil {
				return err
			}
		} else if len(manifest) > 1 {
			return fmt.Errorf("image %d of %d has no name", i+1, len(manifest))
		}
		img, err := tarball.Image(open, tag)
		if err != nil {
			return err
		}
		a.Images = append(a.Images, Image{Names: names, Image: img})
	}
	return nil
}

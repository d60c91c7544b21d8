// Package store is the images of a node, in its containerd.
//
// Job: put archives and made images in, list, save and remove them, so that
// the kubelet finds them without pulling.
//
// Not its job: making images (runtime/image), and what pods do with them.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/runtime/image"
)

// namespace is where containerd keeps what belongs to CRI.
const namespace = "k8s.io"

// The labels by which CRI knows an image as its own, and as one that the
// kubelet's garbage collection must leave alone.
const (
	managedLabel = "io.cri-containerd.image"
	pinnedLabel  = "io.cri-containerd.pinned"
)

// Store is a connection to a node's containerd.
type Store struct {
	client      *containerd.Client
	snapshotter string
}

// Open connects to the containerd at address, a socket's path with or without
// "unix://".
func Open(address string) (*Store, error) {
	c, err := containerd.New(strings.TrimPrefix(address, "unix://"), containerd.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("image store: %s: %w", address, err)
	}
	return &Store{client: c, snapshotter: "overlayfs"}, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.client.Close() }

// Info is one name of one image.
type Info struct {
	Name   string
	Digest string
	Size   int64
	Pinned bool
}

// Import takes every image of an archive, compressed or not, in OCI's or
// docker's form, unpacks it and returns the names.
func (s *Store) Import(ctx context.Context, archive io.Reader, pinned bool) ([]string, error) {
	plain, err := image.Decompress(archive)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	defer plain.Close()
	labels := map[string]string{managedLabel: "managed"}
	if pinned {
		labels[pinnedLabel] = "pinned"
	}
	// A lease keeps garbage collection away between taking and unpacking.
	ctx, done, err := s.client.WithLease(namespaces.WithNamespace(ctx, namespace))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	got, err := s.client.Import(ctx, plain, containerd.WithImageLabels(labels), containerd.WithImportPlatform(platforms.Default()))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	var names []string
	for _, i := range got {
		img := containerd.NewImageWithPlatform(s.client, i, platforms.Default())
		if err := img.Unpack(ctx, s.snapshotter); err != nil {
			return nil, fmt.Errorf("import image %s: unpack: %w", i.Name, err)
		}
		if err := s.byID(ctx, img, labels); err != nil {
			return nil, fmt.Errorf("import image %s: %w", i.Name, err)
		}
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return names, nil
}

// byID gives an image the name that CRI knows it by, its configuration's digest;
// mounting an image as a volume looks it up by that.
func (s *Store) byID(ctx context.Context, img containerd.Image, labels map[string]string) error {
	config, err := img.Config(ctx)
	if err != nil {
		return err
	}
	id := images.Image{Name: config.Digest.String(), Target: img.Target(), Labels: labels}
	if _, err = s.client.ImageService().Create(ctx, id); errdefs.IsAlreadyExists(err) {
		_, err = s.client.ImageService().Update(ctx, id, "target")
	}
	return err
}

// Seed puts made images in, pinned, unless they are there already. The bytes go
// straight from their source to containerd.
func (s *Store) Seed(ctx context.Context, imgs ...image.Image) error {
	var missing []image.Image
	for _, img := range imgs {
		ok, err := s.has(ctx, img)
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, img)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	r, w := io.Pipe()
	defer r.Close()
	run.Detach(ctx, "write images", func(context.Context) { w.CloseWithError(image.Write(w, missing...)) })
	_, err := s.Import(ctx, r, true)
	return err
}

// Present says whether there is an image of each name, whatever its content.
func (s *Store) Present(ctx context.Context, names ...string) (bool, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	for _, n := range names {
		_, err := s.client.ImageService().Get(ctx, n)
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("image %s: %w", n, err)
		}
	}
	return true, nil
}

func (s *Store) has(ctx context.Context, img image.Image) (bool, error) {
	want, err := img.Digest()
	if err != nil {
		return false, err
	}
	for _, n := range img.Names {
		got, err := s.client.ImageService().Get(namespaces.WithNamespace(ctx, namespace), n)
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("image %s: %w", n, err)
		}
		if got.Target.Digest.String() != want.String() {
			return false, nil
		}
	}
	return true, nil
}

// List returns the images by name. Names that CRI adds for its own use, such as
// bare digests, are left out.
func (s *Store) List(ctx context.Context) ([]Info, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	all, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Info
	for _, i := range all {
		if strings.HasPrefix(i.Name, "sha256:") || strings.Contains(i.Name, "@") {
			continue
		}
		size, err := i.Size(ctx, s.client.ContentStore(), platforms.Default())
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("list images: %s: %w", i.Name, err)
		}
		out = append(out, Info{
			Name: i.Name, Digest: i.Target.Digest.String(), Size: size, Pinned: i.Labels[pinnedLabel] == "pinned",
		})
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove takes images' names away; content that no name holds is collected.
func (s *Store) Remove(ctx context.Context, names ...string) error {
	full, err := image.Normalize(names...)
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	var errs []error
	for _, n := range full {
		if err := s.remove(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("remove image %s: %w", n, err))
		}
	}
	return errors.Join(errs...)
}

// remove takes one name away, and with an image's last name the one by its id.
func (s *Store) remove(ctx context.Context, name string) error {
	img, err := s.client.ImageService().Get(ctx, name)
	if err != nil {
		return err
	}
	all, err := s.client.ImageService().List(ctx, "target.digest=="+img.Target.Digest.String())
	if err != nil {
		return err
	}
	var ids []string
	for _, o := range all {
		switch {
		case strings.HasPrefix(o.Name, "sha256:"):
			ids = append(ids, o.Name)
		case o.Name != name && !strings.Contains(o.Name, "@"):
			return s.client.ImageService().Delete(ctx, name, images.SynchronousDelete())
		}
	}
	for _, id := range ids {
		if err := s.client.ImageService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return s.client.ImageService().Delete(ctx, name, images.SynchronousDelete())
}

// Save writes images as one archive, in OCI's form with docker's beside it.
func (s *Store) Save(ctx context.Context, w io.Writer, names ...string) error {
	full, err := image.Normalize(names...)
	if err != nil {
		return err
	}
	opts := []archive.ExportOpt{archive.WithPlatform(platforms.Default())}
	for _, n := range full {
		opts = append(opts, archive.WithImage(s.client.ImageService(), n))
	}
	if err := s.client.Export(namespaces.WithNamespace(ctx, namespace), w, opts...); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

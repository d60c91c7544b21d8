package image

import (
	"fmt"
	goruntime "runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image and the full names it goes by.
type Image struct {
	Names []string
	v1.Image
}

// Config is what an image says about how it is run.
type Config struct {
	Entrypoint, Cmd, Env []string
	User, WorkingDir     string
	Ports                []string // "80/tcp"
	StopSignal           string
}

// New makes an image of layers, for this computer's kind of processor.
func New(cfg Config, names []string, layers ...v1.Layer) (Image, error) {
	full, err := Normalize(names...)
	if err != nil {
		return Image{}, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCIUncompressedLayer}); err != nil {
			return Image{}, fmt.Errorf("make image %s: %w", full[0], err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return Image{}, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", goruntime.GOARCH
	file.Config = v1.Config{
		Entrypoint: cfg.Entrypoint, Cmd: cfg.Cmd, User: cfg.User, WorkingDir: cfg.WorkingDir, StopSignal: cfg.StopSignal,
		Env: append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, cfg.Env...),
	}
	for _, p := range cfg.Ports {
		if file.Config.ExposedPorts == nil {
			file.Config.ExposedPorts = map[string]struct{}{}
		}
		file.Config.ExposedPorts[p] = struct{}{}
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return Image{}, fmt.Errorf("make image %s: %w", full[0], err)
	}
	return Image{Names: full, Image: img}, nil
}

// Normalize writes names in full, as a node knows them: nginx becomes
// docker.io/library/nginx:latest.
func Normalize(names ...string) ([]string, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("image: no name")
	}
	out := make([]string, 0, len(names))
	for _, n := range names {
		ref, err := name.ParseReference(n)
		if err != nil {
			return nil, fmt.Errorf("image name %q: %w", n, err)
		}
		full := ref.Name()
		if rest, ok := strings.CutPrefix(full, name.DefaultRegistry+"/"); ok {
			full = "docker.io/" + rest
		}
		out = append(out, full)
	}
	return out, nil
}

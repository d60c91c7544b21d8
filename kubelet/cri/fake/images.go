package fake

import (
	"context"
	"hash/fnv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
)

// ListImages lists what was pulled.
func (r *Runtime) ListImages(context.Context, *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*runtimeapi.Image
	for _, i := range r.images {
		out = append(out, i)
	}
	return out, nil
}

// ImageStatus reports on an image; its Image is nil when it is not there.
func (r *Runtime) ImageStatus(_ context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.fail["ImageStatus"]; err != nil {
		return nil, err
	}
	return &runtimeapi.ImageStatusResponse{Image: r.images[spec.Image]}, nil
}

// PullImage makes the image be there.
func (r *Runtime) PullImage(_ context.Context, spec *runtimeapi.ImageSpec, _ *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("PullImage", spec.Image); err != nil {
		return "", err
	}
	if r.pull != nil {
		if err := r.pull(spec.Image); err != nil {
			return "", err
		}
	}
	h := fnv.New64a()
	h.Write([]byte(spec.Image))
	sum := strings.Repeat(strings.ToLower(hex(h.Sum64())), 4)
	r.images[spec.Image] = &runtimeapi.Image{
		Id: "sha256:" + sum, RepoTags: []string{spec.Image}, Size: 1 << 20, Spec: spec,
	}
	return "sha256:" + sum, nil
}

func hex(v uint64) string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[15-i] = digits[v&15]
		v >>= 4
	}
	return string(b[:])
}

// RemoveImage forgets an image.
func (r *Runtime) RemoveImage(_ context.Context, spec *runtimeapi.ImageSpec) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("RemoveImage", spec.Image); err != nil {
		return err
	}
	for name, i := range r.images {
		if name == spec.Image || i.Id == spec.Image {
			delete(r.images, name)
		}
	}
	return nil
}

// ImageFsInfo reports an empty filesystem.
func (r *Runtime) ImageFsInfo(context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{
		Timestamp: clock.Now().UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"},
		UsedBytes: &runtimeapi.UInt64Value{}, InodesUsed: &runtimeapi.UInt64Value{},
	}}}, nil
}

// ListContainerStats reports that nothing uses anything.
func (r *Runtime) ListContainerStats(context.Context, *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	return nil, nil
}

// ListPodSandboxStats reports that nothing uses anything.
func (r *Runtime) ListPodSandboxStats(context.Context, *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	return nil, nil
}

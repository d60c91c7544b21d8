package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kubelet/image"
	"github.com/sampan-dev/sampan/kubelet/spec"
)

// imageVolumes makes the images be there that a container mounts as volumes.
func (k *Kubelet) imageVolumes(ctx context.Context, pod *corev1.Pod, c *corev1.Container, want image.Want) (map[string]*runtimeapi.ImageSpec, *corev1.ContainerStateWaiting) {
	var out map[string]*runtimeapi.ImageSpec
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image == nil || v.Image.Reference == "" || !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		want.Image, want.Policy = v.Image.Reference, v.Image.PullPolicy
		img, waits := k.ensure(ctx, want)
		if waits != nil {
			return nil, waits
		}
		if out == nil {
			out = map[string]*runtimeapi.ImageSpec{}
		}
		out[v.Name] = &runtimeapi.ImageSpec{Image: img.Id, UserSpecifiedImage: v.Image.Reference}
	}
	return out, nil
}

// mounts lists what a container sees of the node's files: its volumes, the
// hosts file, the place of its last words.
func (k *Kubelet) mounts(w *worker, in *spec.Input, images map[string]*runtimeapi.ImageSpec) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	hosts := true
	for i := range in.Container.VolumeMounts {
		m, err := k.mount(w, in, i, images)
		if err != nil {
			return nil, err
		}
		hosts = hosts && m.ContainerPath != "/etc/hosts"
		out = append(out, m)
	}
	if hosts {
		m, err := k.hostsMount(in)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if in.Container.TerminationMessagePath != "" {
		m, err := k.lastWords(in)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// mount is the volume mount at index of a container.
func (k *Kubelet) mount(w *worker, in *spec.Input, index int, images map[string]*runtimeapi.ImageSpec) (*runtimeapi.Mount, error) {
	pod, c, m := in.Pod, in.Container, &in.Container.VolumeMounts[index]
	v, ok := w.volumes[m.Name]
	if !ok || v.Block {
		return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
	}
	sub, err := subPath(m, in.Env)
	if err != nil {
		return nil, err
	}
	at := m.MountPath
	if !filepath.IsAbs(at) {
		at = filepath.Join("/", at)
	}
	deep, err := spec.RecursiveReadOnly(m, k.nodes.RecursiveReadOnly(w.handler))
	if err != nil {
		return nil, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
	}
	out := &runtimeapi.Mount{ContainerPath: at, Readonly: m.ReadOnly || v.ReadOnly, RecursiveReadOnly: deep, Propagation: propagation(m.MountPropagation)}
	if img := images[m.Name]; img != nil {
		out.Image, out.ImageSubPath, out.Readonly = img, sub, true
		return out, nil
	}
	out.HostPath = v.Path
	if sub != "" {
		if out.HostPath, err = k.volumes.SubPath(pod, m.Name, v.Path, c.Name, index, sub); err != nil {
			// The reason may tell of the node's files, which are not the user's to know.
			k.log.Warn("preparing a subPath failed", "pod", pod.Name, "container", c.Name, "volume", m.Name, "err", err)
			return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", m.Name, c.Name)
		}
	}
	return out, nil
}

// subPath is the part of a volume that a mount shows; "" is all of it.
func subPath(m *corev1.VolumeMount, env []*runtimeapi.KeyValue) (string, error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		known := map[string]string{}
		for _, e := range env {
			known[e.Key] = string(e.Value)
		}
		missing := ""
		sub = spec.Expand(m.SubPathExpr, func(n string) string {
			v, ok := known[n]
			if !ok {
				missing = n
			}
			return v
		})
		if missing != "" {
			return "", fmt.Errorf("missing value for %q", missing)
		}
	}
	switch {
	case filepath.IsAbs(sub):
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	case slices.Contains(strings.Split(filepath.ToSlash(sub), "/"), ".."):
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	return sub, nil
}

// devices lists the raw block devices that a container is given.
func devices(w *worker, c *corev1.Container) ([]*runtimeapi.Device, error) {
	var out []*runtimeapi.Device
	for _, d := range c.VolumeDevices {
		v, ok := w.volumes[d.Name]
		if !ok || !v.Block {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, c.Name)
		}
		permissions := "mrw"
		if v.ReadOnly {
			permissions = "r"
		}
		out = append(out, &runtimeapi.Device{HostPath: v.Path, ContainerPath: d.DevicePath, Permissions: permissions})
	}
	return out, nil
}

// hostsMount writes the pod's hosts file.
func (k *Kubelet) hostsMount(in *spec.Input) (*runtimeapi.Mount, error) {
	file := filepath.Join(k.volumes.PodDir(in.Pod.UID), "etc-hosts")
	nodeHosts := ""
	if in.Pod.Spec.HostNetwork {
		b, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return nil, err
		}
		nodeHosts = string(b)
	}
	if err := os.WriteFile(file, []byte(spec.Hosts(in.Pod, &k.node, in.PodIPs, nodeHosts)), 0o644); err != nil {
		return nil, err
	}
	return &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: file}, nil
}

// lastWords makes the file in which a container may say why it ends.
func (k *Kubelet) lastWords(in *spec.Input) (*runtimeapi.Mount, error) {
	file := filepath.Join(k.volumes.PodDir(in.Pod.UID), "containers", in.Container.Name, fmt.Sprintf("%08x", in.Restarts))
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return nil, err
	}
	if err := os.Chmod(file, 0o666); err != nil { // whatever the umask says
		return nil, err
	}
	return &runtimeapi.Mount{ContainerPath: in.Container.TerminationMessagePath, HostPath: file}, nil
}

func propagation(p *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	if p != nil {
		switch *p {
		case corev1.MountPropagationHostToContainer:
			return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case corev1.MountPropagationBidirectional:
			return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

package kubelet

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/kubelet/cgroup"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/logs"
	"github.com/sampan-dev/sampan/kubelet/server"
)

// Serve says how the HTTPS endpoint listens and whom it lets in.
type Serve struct {
	server.Config
	Tokens   bool // bearer tokens are reviewed by the API server
	AllowAll bool // every known caller may do all; else access is reviewed
}

// endpoint returns the HTTPS endpoint of this agent.
func (k *Kubelet) endpoint(s *Serve, metrics prometheus.Gatherer) *server.Server {
	return server.New(s.Config, server.Deps{
		Host: host{k}, Runtime: k.deps.Runtime, Images: k.deps.Images, Metrics: metrics, Probes: k.metrics.probeMetrics(), Log: k.log,
		Auth: server.NewReviews(k.deps.Client, k.cfg.NodeName, s.Tokens, s.AllowAll),
	})
}

// host is what the endpoint sees of the agent.
type host struct{ k *Kubelet }

func (h host) Pods() []*corev1.Pod           { return h.k.Pods() }
func (h host) NodeName() string              { return h.k.cfg.NodeName }
func (h host) Configuration() any            { return h.k.cfg.Component }
func (h host) Healthy(context.Context) error { return nil }

// find returns the worker of a pod by its name, a static pod's mirror included.
func (h host) find(namespace, name string) (*worker, *corev1.Pod, *corev1.PodStatus) {
	for _, w := range h.k.workers() {
		pod, st := w.view()
		if pod.Namespace == namespace && pod.Name == name {
			return w, pod, st
		}
	}
	return nil, nil, nil
}

func (h host) Find(ctx context.Context, namespace, name, container string) (string, error) {
	w, _, _ := h.find(namespace, name)
	if w == nil {
		return "", fmt.Errorf("pod %q in namespace %q: %w", name, namespace, server.ErrNotFound)
	}
	state, err := cri.Observe(ctx, h.k.deps.Runtime, w.uid)
	if err != nil {
		return "", err
	}
	if container == "" {
		if sb := state.Sandbox(); sb != nil && sb.Ready {
			return sb.ID, nil
		}
		return "", fmt.Errorf("sandbox of pod %q: %w", name, server.ErrNotFound)
	}
	if c := state.Container(container); c != nil {
		return c.ID, nil
	}
	return "", fmt.Errorf("container %q: %w", container, server.ErrNotFound)
}

func (h host) Logs(ctx context.Context, namespace, name, container string, o *corev1.PodLogOptions, stdout, stderr io.Writer) error {
	w, pod, st := h.find(namespace, name)
	if w == nil {
		return fmt.Errorf("pod %q does not exist in namespace %q: %w", name, namespace, server.ErrNotFound)
	}
	if containerOf(pod, container) == nil {
		return fmt.Errorf("container %q not found in pod %q", container, name)
	}
	state, err := cri.Observe(ctx, h.k.deps.Runtime, w.uid)
	if err != nil {
		return err
	}
	c := state.Container(container)
	if c != nil && c.Started.IsZero() && !o.Previous { // made but not started: there is nothing to read
		c = nil
	}
	if o.Previous && c != nil {
		c = before(state, c)
		if c == nil {
			return fmt.Errorf("previous terminated container %q in pod %q not found", container, name)
		}
	}
	if c == nil {
		return fmt.Errorf("container %q in pod %q is waiting to start: %s", container, name, waitReason(st, container))
	}
	path := c.LogPath
	if path == "" {
		path = filepath.Join(h.k.podLogDir(pod), container, fmt.Sprintf("%d.log", c.Restarts))
	}
	id := c.ID
	alive := func() bool {
		r, err := h.k.deps.Runtime.ContainerStatus(ctx, id, false)
		return err == nil && r.GetStatus().GetFinishedAt() == 0
	}
	return logs.Read(ctx, path, o, alive, stdout, stderr)
}

// before returns the run of a container before c.
func before(state *cri.State, c *cri.Container) *cri.Container {
	for i := range state.Containers {
		if o := &state.Containers[i]; o.Name == c.Name && o.ID != c.ID && o.Restarts < c.Restarts {
			return o
		}
	}
	return nil
}

func waitReason(st *corev1.PodStatus, container string) string {
	if st != nil {
		for _, list := range [][]corev1.ContainerStatus{st.ContainerStatuses, st.InitContainerStatuses, st.EphemeralContainerStatuses} {
			for _, s := range list {
				if s.Name == container && s.State.Waiting != nil {
					if r := s.State.Waiting.Reason; strings.HasPrefix(r, "ErrImage") || r == "ImagePullBackOff" {
						return "trying and failing to pull image"
					} else if r != "" {
						return r
					}
				}
			}
		}
	}
	return "ContainerCreating"
}

// PodUIDs returns the pods the agent knows, for those who clean up after pods.
func (k *Kubelet) PodUIDs() map[types.UID]bool {
	out := map[types.UID]bool{}
	for _, w := range k.workers() {
		out[w.uid] = true
	}
	return out
}

// Cores is how many processors the node has.
func (h host) Cores() int {
	capacity := h.k.nodes.Capacity()
	return int(capacity.Cpu().Value())
}

// Machine measures the node as a whole: its own control groups, and where it has
// none, the kernel's figures.
func (h host) Machine() server.Machine {
	u := cgroup.Machine()
	m := server.Machine{CPU: u.CPU, Memory: u.Memory, WorkingSet: u.WorkingSet, Rss: u.Rss, Faults: u.Faults, MajorFaults: u.MajorFaults, Root: h.k.cfg.Root}
	if all := uint64(h.k.memoryCapacity()); all > u.WorkingSet {
		m.Available = all - u.WorkingSet
	}
	left, limit := pids()
	m.Processes, m.MaxProcesses = limit-left, limit
	return m
}

// Disk measures what a pod keeps on the node.
func (h host) Disk(_ context.Context, pod *corev1.Pod) server.Disk {
	d := server.Disk{Logs: map[string]server.Files{}}
	files := func(path string) server.Files {
		bytes, inodes := du(path)
		return server.Files{Bytes: bytes, Inodes: inodes}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			d.Logs[list[i].Name] = files(filepath.Join(h.k.podLogDir(pod), list[i].Name))
		}
	}
	if info, err := os.Stat(filepath.Join(h.k.volumes.PodDir(pod.UID), "etc-hosts")); err == nil {
		d.Own = server.Files{Bytes: info.Size(), Inodes: 1}
	}
	w := h.k.worker(pod.UID)
	if w == nil {
		return d
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		w.mu.Lock()
		at := w.volumes[v.Name]
		w.mu.Unlock()
		one := server.Volume{Name: v.Name}
		switch {
		case at.Path == "" || at.Block || v.HostPath != nil:
			continue
		case v.PersistentVolumeClaim != nil:
			one.Claim, one.Path = v.PersistentVolumeClaim.ClaimName, at.Path
		case v.Ephemeral != nil:
			one.Claim, one.Path = pod.Name+"-"+v.Name, at.Path
		default:
			one.Files = files(at.Path)
			one.Ephemeral = v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault || v.ConfigMap != nil || v.DownwardAPI != nil
		}
		d.Volumes = append(d.Volumes, one)
	}
	return d
}

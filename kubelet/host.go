package kubelet

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/prometheus/client_golang/prometheus"

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
		Host: host{k}, Runtime: k.deps.Runtime, Images: k.deps.Images, Metrics: metrics, Log: k.log,
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

package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cgroup"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/logs"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// linkLog makes the link by which log collectors find a container's log.
func (k *Kubelet) linkLog(pod *corev1.Pod, container, id, path string) {
	if k.cfg.ContainerLogs == "" {
		return
	}
	link := filepath.Join(k.cfg.ContainerLogs, fmt.Sprintf("%s_%s_%s-%s.log", pod.Name, pod.Namespace, container, id))
	if err := os.MkdirAll(k.cfg.ContainerLogs, 0o755); err != nil {
		k.log.Warn("no directory for log links", "err", err)
		return
	}
	if err := os.Symlink(path, link); err != nil && !errors.Is(err, fs.ErrExist) {
		k.log.Warn("linking a log failed", "link", link, "err", err)
	}
}

func (k *Kubelet) unlinkLogs(name, namespace, container, id string) {
	if k.cfg.ContainerLogs == "" {
		return
	}
	links, err := filepath.Glob(filepath.Join(k.cfg.ContainerLogs, fmt.Sprintf("%s_%s_%s-%s.log", name, namespace, container, id)))
	if err != nil {
		return
	}
	for _, l := range links {
		if err := os.Remove(l); err != nil {
			k.log.Warn("removing a log link failed", "err", err)
		}
	}
}

// removeLogs removes what one run of a container left.
func (k *Kubelet) removeLogs(state *cri.State, c *cri.Container) {
	k.unlinkLogs(state.Name, state.Namespace, c.Name, c.ID)
	if c.LogPath == "" || !strings.HasPrefix(c.LogPath, k.cfg.PodLogs) {
		return
	}
	files, err := filepath.Glob(c.LogPath + "*")
	if err != nil {
		return
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.log.Warn("removing a log failed", "err", err)
		}
	}
}

// removePodLogs removes all logs of a pod.
func (k *Kubelet) removePodLogs(w *worker) error {
	pod, _ := w.view()
	k.unlinkLogs(pod.Name, pod.Namespace, "*", "*")
	return os.RemoveAll(k.podLogDir(pod))
}

// logTail returns the end of a container's log, for its last words.
func (k *Kubelet) logTail(cs *cri.Container) string {
	var b bytes.Buffer
	lines := int64(maxMessageLines)
	if err := logs.Read(context.Background(), cs.LogPath, &corev1.PodLogOptions{TailLines: &lines}, nil, &b, &b); err != nil {
		return ""
	}
	out := b.Bytes()
	if len(out) > maxLogMessage {
		out = out[len(out)-maxLogMessage:]
	}
	return strings.ToValidUTF8(string(out), "")
}

// rotate looks at the size of all running containers' logs now and then.
func (k *Kubelet) rotate(ctx context.Context) error {
	for clock.Sleep(ctx, 10*time.Second) == nil {
		for _, w := range k.workers() {
			pod, st := w.view()
			if st == nil {
				continue
			}
			for _, c := range append(append([]corev1.ContainerStatus(nil), st.InitContainerStatuses...), st.ContainerStatuses...) {
				_, id, ok := strings.Cut(c.ContainerID, "://")
				if !ok || c.State.Running == nil {
					continue
				}
				path := filepath.Join(k.podLogDir(pod), c.Name, fmt.Sprintf("%d.log", c.RestartCount))
				err := logs.Rotate(path, k.cfg.ContainerLogMaxSize, k.cfg.ContainerLogMaxFiles, func() error {
					return k.deps.Runtime.ReopenContainerLog(ctx, id)
				})
				if err != nil {
					k.log.Warn("rotating a log failed", "path", path, "err", err)
				}
			}
		}
	}
	return nil
}

// cgroupParent is where the runtime puts a pod's containers; "" leaves it to the runtime.
func (k *Kubelet) cgroupParent(pod *corev1.Pod) string {
	if !k.cfg.Cgroups {
		return ""
	}
	return cgroup.PodPath(k.cfg.CgroupRoot, semantics.QoS(pod), pod.UID)
}

func (k *Kubelet) makeCgroup(pod *corev1.Pod) error {
	if !k.cfg.Cgroups {
		return nil
	}
	return cgroup.Ensure(k.cgroupParent(pod), k.podResources(pod))
}

func limited(pod *corev1.Pod, name corev1.ResourceName) bool {
	if r := pod.Spec.Resources; r != nil {
		if _, ok := r.Limits[name]; ok {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if _, ok := list[i].Resources.Limits[name]; !ok {
				return false
			}
		}
	}
	return true
}

func (k *Kubelet) removeCgroup(uid types.UID) error {
	if !k.cfg.Cgroups {
		return nil
	}
	var errs []error
	for _, q := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		errs = append(errs, cgroup.Remove(cgroup.PodPath(k.cfg.CgroupRoot, q, uid)))
	}
	return errors.Join(errs...)
}

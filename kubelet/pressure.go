package kubelet

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/evict"
	"github.com/sampan-dev/sampan/kubelet/image"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// watchPressure looks at what the node is short of, and now and then removes
// unused images.
func (k *Kubelet) watchPressure(ctx context.Context) error {
	var state evict.State
	for tick := 0; clock.Sleep(ctx, 10*time.Second) == nil; tick++ {
		if len(k.cfg.Evict) > 0 {
			k.relieve(ctx, &state)
		}
		k.keepLimits(ctx)
		if tick%30 != 0 {
			continue
		}
		if err := k.cleanImages(ctx, k.cfg.ImageGCHigh, k.cfg.ImageGCLow, k.cfg.ImageMinAge); err != nil {
			k.log.Warn("removing unused images failed", "err", err)
		}
	}
	return nil
}

// cleanImages removes unused images above high percent, down to low.
func (k *Kubelet) cleanImages(ctx context.Context, high, low int, age time.Duration) error {
	var u image.Usage
	u.Capacity, u.Available = space(k.imageFS(ctx))
	list, err := k.deps.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{})
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, c := range list {
		used[c.ImageRef], used[c.ImageId] = true, true
	}
	for _, p := range k.Pods() { // what a pod mounts is in use, too
		for _, v := range p.Spec.Volumes {
			if v.Image != nil {
				used[k.images.ID(ctx, v.Image.Reference)] = true
			}
		}
	}
	return k.images.Clean(ctx, image.Policy{Usage: u, High: high, Low: low, MinAge: age, MaxAge: k.cfg.ImageMaxAge}, used)
}

// imageFS is where the runtime keeps images; "" when it does not say.
func (k *Kubelet) imageFS(ctx context.Context) string {
	if info, err := k.deps.Images.ImageFsInfo(ctx); err == nil {
		if fs := info.GetImageFilesystems(); len(fs) > 0 {
			return fs[0].GetFsId().GetMountpoint()
		}
	}
	return ""
}

func space(path string) (capacity, available int64) {
	var fs unix.Statfs_t
	if path == "" || unix.Statfs(path, &fs) != nil {
		return 0, 0
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize
}

// observe measures what may run short.
func (k *Kubelet) observe(ctx context.Context) map[evict.Signal]evict.Observation {
	out := map[evict.Signal]evict.Observation{}
	disk := func(path string, bytes, inodes evict.Signal) {
		var fs unix.Statfs_t
		if path == "" || unix.Statfs(path, &fs) != nil {
			return
		}
		out[bytes] = evict.Observation{Available: int64(fs.Bavail) * fs.Bsize, Capacity: int64(fs.Blocks) * fs.Bsize}
		if fs.Files > 0 { // some filesystems do not count them
			out[inodes] = evict.Observation{Available: int64(fs.Ffree), Capacity: int64(fs.Files)}
		}
	}
	disk(k.cfg.Root, evict.NodeDisk, evict.NodeInodes)
	images := k.imageFS(ctx)
	disk(images, evict.ImageDisk, evict.ImageInodes)
	disk(images, evict.ContainerFS, evict.ContainerIno)
	out[evict.Memory] = evict.Observation{Available: k.cfg.availableMemory(), Capacity: k.memoryCapacity()}
	if left, limit := pids(); limit > 0 {
		out[evict.Pids] = evict.Observation{Available: left, Capacity: limit}
	}
	return out
}

// relieve tells of what is short, and makes one pod give way if nothing else helps.
func (k *Kubelet) relieve(ctx context.Context, state *evict.State) {
	conditions, met := state.Step(k.cfg.Evict, k.observe(ctx), clock.Now(), k.cfg.PressureTransition)
	k.nodes.SetPressure(conditions)
	if len(met) == 0 {
		return
	}
	m := met[0]
	if m.Signal.Condition() == corev1.NodeDiskPressure {
		// What nobody uses goes before what somebody does.
		k.removeDead(ctx)
		if err := k.cleanImages(ctx, 1, 0, 0); err != nil {
			k.log.Warn("removing unused images failed", "err", err)
		}
		if o := k.observe(ctx)[m.Signal]; o.Available >= m.Quantity {
			return
		}
	}
	var pods []*corev1.Pod
	usage := map[string]evict.Usage{}
	stats := k.containerStats(ctx)
	for _, w := range k.workers() {
		w.mu.Lock()
		pod, active := w.pod, !w.ending && !w.static && w.admitted
		w.mu.Unlock()
		if active && semantics.Active(pod) && !evict.Critical(pod) {
			pods = append(pods, pod)
			usage[string(pod.UID)] = k.usage(pod, stats)
		}
	}
	for _, p := range evict.Rank(m.Signal.Resource(), pods, usage) {
		message, grace := evict.Message(m, p, usage[string(p.UID)]), int64(1)
		if m.Soft {
			grace = min(k.cfg.EvictMaxGrace, gracePeriod(p))
		}
		k.evict(p, string(m.Signal), message, message, grace)
		return
	}
	k.log.Warn("the node is short and has no pod to evict", "signal", string(m.Signal))
}

// evict ends a pod for good. disruption tells of it in a condition; "" adds none.
func (k *Kubelet) evict(p *corev1.Pod, signal, message, disruption string, grace int64) {
	w := k.worker(p.UID)
	if w == nil {
		return
	}
	k.metrics.evictions.WithLabelValues(signal).Inc()
	k.containerEvent(p, "", corev1.EventTypeWarning, "Evicted", message)
	w.fail(verdict{corev1.PodFailed, "Evicted", message, disruption}, grace)
	k.work.Add(p.UID)
}

// keepLimits evicts pods that use more local storage than they may.
func (k *Kubelet) keepLimits(ctx context.Context) {
	var stats map[string][]*runtimeapi.ContainerStats
	for _, w := range k.workers() {
		w.mu.Lock()
		pod, active := w.pod, !w.ending && !w.static && w.admitted
		w.mu.Unlock()
		if !active || !semantics.Active(pod) || !evict.Limited(pod) {
			continue
		}
		if stats == nil {
			stats = k.containerStats(ctx)
		}
		if message := evict.OverLimit(pod, k.usage(pod, stats)); message != "" && !evict.Critical(pod) {
			k.evict(pod, "ephemeralpodfs.limit", message, "", 1)
		}
	}
}

// removeDead removes containers that have ended and will not be asked about.
func (k *Kubelet) removeDead(ctx context.Context) {
	for _, w := range k.workers() {
		state, err := cri.Observe(ctx, k.deps.Runtime, w.uid)
		if err != nil {
			continue
		}
		newest := map[string]bool{}
		for i := range state.Containers {
			c := &state.Containers[i]
			if c.Exited() && newest[c.Name] {
				if err := k.deps.Runtime.RemoveContainer(ctx, c.ID); err != nil {
					k.log.Warn("removing a dead container failed", "id", c.ID, "err", err)
				}
			}
			newest[c.Name] = true
		}
	}
}

// pressed returns the conditions of the node that refuse new pods.
func (k *Kubelet) pressed() []corev1.NodeConditionType {
	out := k.nodes.Pressure()
	slices.Sort(out)
	return out
}

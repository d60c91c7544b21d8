package kubelet

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/image"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// cleanImages removes unused images now and then, and looks at what the node
// is short of.
func (k *Kubelet) cleanImages(ctx context.Context) error {
	for tick := 0; clock.Sleep(ctx, 10*time.Second) == nil; tick++ {
		if k.cfg.EvictMemory > 0 || k.cfg.EvictDisk > 0 {
			k.relieve(ctx)
		}
		if tick%30 != 0 {
			continue
		}
		if err := k.cleanOnce(ctx); err != nil {
			k.log.Warn("removing unused images failed", "err", err)
		}
	}
	return nil
}

func (k *Kubelet) cleanOnce(ctx context.Context) error {
	info, err := k.deps.Images.ImageFsInfo(ctx)
	if err != nil {
		return err
	}
	var u image.Usage
	if fs := info.GetImageFilesystems(); len(fs) > 0 {
		u.Capacity, u.Available = space(fs[0].GetFsId().GetMountpoint())
	}
	list, err := k.deps.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{})
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, c := range list {
		used[c.ImageRef], used[c.ImageId] = true, true
	}
	return k.images.Clean(ctx, u, k.cfg.ImageGCHigh, k.cfg.ImageGCLow, k.cfg.ImageMinAge, used)
}

func space(path string) (capacity, available int64) {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return 0, 0
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize
}

// relieve evicts one pod when memory or disk run short.
func (k *Kubelet) relieve(ctx context.Context) {
	short := func(t corev1.NodeConditionType, have, want int64) bool {
		if want == 0 || have >= want {
			k.nodes.SetPressure(t, "")
			return false
		}
		k.nodes.SetPressure(t, "below the threshold")
		return true
	}
	memory := available()
	_, disk := space(k.cfg.Root)
	resource := corev1.ResourceName("")
	if short(corev1.NodeDiskPressure, disk, k.cfg.EvictDisk) {
		resource = corev1.ResourceEphemeralStorage
	}
	if short(corev1.NodeMemoryPressure, memory, k.cfg.EvictMemory) {
		resource = corev1.ResourceMemory
	}
	if resource == "" {
		return
	}
	usage := map[string]int64{}
	if stats, err := k.deps.Runtime.ListPodSandboxStats(ctx, nil); err == nil {
		for _, s := range stats {
			usage[s.GetAttributes().GetLabels()[cri.PodUIDLabel]] = int64(s.GetLinux().GetMemory().GetWorkingSetBytes().GetValue())
		}
	}
	var pods []*corev1.Pod
	for _, p := range k.Pods() {
		if w := k.worker(p.UID); w != nil && !w.static && semantics.Active(p) {
			pods = append(pods, p)
		}
	}
	for _, p := range Rank(pods, usage) {
		if priority(p) >= 2_000_000_000 {
			continue // the cluster's own are never evicted
		}
		message := fmt.Sprintf("The node was low on resource: %s. ", resource)
		k.containerEvent(p, "", corev1.EventTypeWarning, "Evicted", message)
		if w := k.worker(p.UID); w != nil {
			w.fail("Evicted", message, 0)
			k.work.Add(p.UID)
		}
		return
	}
}

// available is the memory that could be had without swapping.
func available() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 1 << 62
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == "MemAvailable:" {
			if kb, err := strconv.ParseInt(w[1], 10, 64); err == nil {
				return kb << 10
			}
		}
	}
	return 1 << 62
}

func priority(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// Rank orders pods for eviction: those that use more memory than they asked
// for first, then the less important, then those furthest above their requests.
func Rank(pods []*corev1.Pod, usage map[string]int64) []*corev1.Pod {
	over := func(p *corev1.Pod) int64 {
		r := semantics.Requests(p)
		return usage[string(p.UID)] - r.Memory().Value()
	}
	exceeds := func(p *corev1.Pod) int {
		if over(p) > 0 {
			return 0
		}
		return 1
	}
	out := slices.Clone(pods)
	slices.SortStableFunc(out, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(exceeds(a), exceeds(b)), cmp.Compare(priority(a), priority(b)), cmp.Compare(over(b), over(a)))
	})
	return out
}

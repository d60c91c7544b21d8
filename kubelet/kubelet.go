package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/queue"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet/certs"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/csi"
	"github.com/sampan-dev/sampan/kubelet/image"
	"github.com/sampan-dev/sampan/kubelet/nodestatus"
	"github.com/sampan-dev/sampan/kubelet/probe"
	"github.com/sampan-dev/sampan/kubelet/spec"
	"github.com/sampan-dev/sampan/kubelet/volume"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// Kubelet is the agent of one node. Make one with New.
type Kubelet struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	node spec.Node

	mirror   client.Watchable[corev1.Pod]
	services client.Watchable[corev1.Service]
	refs     *refs
	volumes  *volume.Manager
	drivers  *csi.Registry
	images   *image.Puller
	probes   *probe.Manager
	nodes    *nodestatus.Manager
	metrics  *metrics
	certs    *certs.Rotator // nil when no certificate is renewed

	work    *queue.Queue[types.UID] // pods to bring forward
	reports *queue.Queue[types.UID] // statuses to write

	staticRead atomic.Bool   // the manifests were read once, or there are none
	reread     chan struct{} // the manifests are to be read again

	mu   sync.Mutex
	pods map[types.UID]*worker
}

// New returns an agent that has not started.
func New(cfg Config, deps Deps) (*Kubelet, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	policy := backoff.Policy{First: time.Second, Max: 20 * time.Second}
	k := &Kubelet{
		cfg: cfg, deps: deps, log: deps.Log.With("room", "kubelet"),
		work: queue.New[types.UID](policy), reports: queue.New[types.UID](policy),
		pods: map[types.UID]*worker{}, reread: make(chan struct{}, 1), metrics: newMetrics(deps.Metrics, cfg.NodeName),
	}
	if deps.Metrics != nil {
		deps.Metrics.Unregister(running{k}) // of an agent before this one
		if err := deps.Metrics.Register(running{k}); err != nil {
			return nil, fmt.Errorf("kubelet: metrics: %w", err)
		}
	}
	resolv, err := os.ReadFile(cfg.ResolvConf)
	if err != nil && cfg.ResolvConf != "" {
		k.log.Warn("no resolver configuration", "file", cfg.ResolvConf, "err", err)
	}
	k.node = spec.Node{
		Name: cfg.NodeName, HostIPs: cfg.NodeIPs, ClusterDNS: cfg.ClusterDNS, ClusterDomain: cfg.ClusterDomain,
		ResolvConf: string(resolv), SeccompRoot: cfg.Root + "/seccomp", SeccompByDefault: cfg.SeccompByDefault,
		MaxOOMAdjust: cfg.OOMAdjust, CPUQuota: cfg.CPUQuota,
	}
	k.mirror = client.MirrorOf[corev1.Pod](deps.Mirrors, client.MirrorOptions{Fields: "spec.nodeName=" + cfg.NodeName})
	k.services = client.MirrorOf[corev1.Service](deps.Mirrors, client.MirrorOptions{})
	k.refs = newRefs(deps.Client, k.refChanged)
	k.drivers = csi.New(cfg.Root, cfg.NodeName, deps.Client, teller{k}, k.log)
	k.volumes = volume.New(cfg.Root, source{k}, drivers{k})
	k.images = image.New(deps.Images, cfg.ParallelPulls)
	k.probes = probe.New(probe.Deps{
		Ask: probe.Network{Runtime: deps.Runtime}, Log: k.log, Changed: k.work.Add, Count: k.metrics.probed,
		Event: func(t *probe.Target, kind, reason, message string) {
			k.containerEvent(t.Pod, t.Container.Name, kind, reason, message)
		},
	})
	k.nodes = nodestatus.New(nodestatus.Config{
		Name: cfg.NodeName, Register: cfg.Register, IPs: cfg.NodeIPs, Labels: cfg.Labels, Taints: cfg.Taints, ProviderID: cfg.ProviderID,
		Capacity: cfg.Capacity, Reserved: cfg.Reserved, MaxPods: cfg.MaxPods, Port: cfg.Port, Version: cfg.Version,
		Every: cfg.StatusEvery, Report: cfg.StatusReport, Lease: cfg.LeaseDuration, Root: cfg.Root,
	}, nodestatus.Deps{Client: deps.Client, Runtime: deps.Runtime, Images: deps.Images, Events: deps.Events, Log: k.log, InUse: k.drivers.InUse})
	k.node.Allocatable = k.nodes.Allocatable()
	return k, nil
}

// Run keeps the node going until ctx ends. Pods outlive it.
func (k *Kubelet) Run(ctx context.Context) error {
	if err := os.MkdirAll(k.cfg.Root, 0o750); err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	k.drivers.Recall()
	g := run.New(ctx)
	g.Go("node", k.nodes.Run)
	g.Go("refs", k.refs.run)
	g.Go("runtime events", k.follow)
	k.mirror.OnChange(k.podChanged)
	if k.cfg.StaticPods != "" {
		g.Go("static pods", k.static)
	} else {
		k.staticRead.Store(true)
	}
	g.Go("adopt", func(ctx context.Context) error {
		if err := k.mirror.WaitSynced(ctx); err != nil {
			return nil
		}
		return k.relist(ctx)
	})
	g.Go("relist", k.relistLoop)
	g.Go("refresh", k.refresh)
	g.Go("logs", k.rotate)
	g.Go("pressure", k.watchPressure)
	if k.cfg.Plugins {
		g.Go("storage drivers", k.drivers.Run)
	}
	if c := k.cfg.Certs; c != nil {
		mine := *c
		mine.Node, mine.IPs = k.cfg.NodeName, k.cfg.NodeIPs // as they are now: an address may have been found since
		k.certs = certs.New(mine, k.deps.Client, k.log)
		g.Go("certificates", k.certs.Run)
	}
	if s := k.cfg.Serve; s != nil {
		metrics, _ := k.deps.Metrics.(prometheus.Gatherer)
		conf := *s
		if k.certs != nil && k.cfg.Certs.Serving != "" {
			conf.Certificate = k.certs.Serving
		}
		g.Go("endpoint", k.endpoint(&conf, metrics).Run)
	}
	g.Go("reports", func(ctx context.Context) error { return k.dispatch(ctx, k.reports, "report", k.report) })
	g.Go("pods", func(ctx context.Context) error { return k.dispatch(ctx, k.work, "pod", k.sync) })
	return g.Wait()
}

// dispatch hands every key of q to fn, each on its own, until ctx ends; then it
// waits for those under way.
func (k *Kubelet) dispatch(ctx context.Context, q *queue.Queue[types.UID], name string, fn func(context.Context, types.UID) error) error {
	var busy sync.WaitGroup
	defer busy.Wait()
	for {
		uid, err := q.Get(ctx)
		if err != nil {
			return nil
		}
		busy.Add(1)
		run.Detach(ctx, name, func(ctx context.Context) {
			defer busy.Done()
			defer q.Done(uid)
			err := fn(ctx, uid)
			if err == nil {
				q.Forget(uid)
				return
			}
			if !errors.Is(err, context.Canceled) {
				k.log.Warn(name+" failed", "uid", uid, "err", err)
			}
			if ctx.Err() == nil {
				q.Retry(uid)
			}
		})
	}
}

// podChanged takes in what the API says of this node's pods.
func (k *Kubelet) podChanged(old, pod *corev1.Pod) {
	if pod == nil {
		k.podGone(old)
		return
	}
	if semantics.IsMirror(pod) {
		k.mirrorChanged(pod)
		return
	}
	k.update(pod, false)
}

// update makes pod the desired state of its worker.
func (k *Kubelet) update(pod *corev1.Pod, static bool) {
	k.mu.Lock()
	w := k.pods[pod.UID]
	if w == nil {
		w = newWorker(pod)
		w.static, w.book = static, k.readBook(pod.UID)
		w.progress = semantics.Condition(pod.Status.DeepCopy(), corev1.PodResizeInProgress)
		k.pods[pod.UID] = w
	}
	k.mu.Unlock()
	w.set(pod)
	k.work.Add(pod.UID)
	k.reports.Add(pod.UID)
}

// podGone ends a pod that its source no longer has. A mirror pod is no source:
// the static pod it showed gets another.
func (k *Kubelet) podGone(pod *corev1.Pod) {
	if semantics.IsMirror(pod) {
		k.mirrorGone(pod)
		return
	}
	if w := k.worker(pod.UID); w != nil {
		w.remove()
		k.work.Add(pod.UID)
	}
}

func (k *Kubelet) worker(uid types.UID) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods[uid]
}

// workers returns all pods that are known.
func (k *Kubelet) workers() []*worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]*worker, 0, len(k.pods))
	for w := range maps.Values(k.pods) {
		out = append(out, w)
	}
	return out
}

// Pods returns the pods this node runs, with their last status.
func (k *Kubelet) Pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, w := range k.workers() {
		pod, st := w.view()
		if pod == nil {
			continue
		}
		pod = pod.DeepCopy()
		if st != nil {
			pod.Status = *st
		}
		out = append(out, pod)
	}
	return out
}

// follow wakes pods when the runtime tells of a change in them.
func (k *Kubelet) follow(ctx context.Context) error {
	ch := make(chan *runtimeapi.ContainerEventResponse, 1000)
	run.Detach(ctx, "runtime event stream", func(ctx context.Context) {
		for ctx.Err() == nil {
			err := k.deps.Runtime.GetContainerEvents(ctx, ch, nil)
			switch {
			case ctx.Err() != nil:
				return
			case cri.Unknown(err):
				k.log.Warn("the runtime tells of no events; it is asked every second")
				k.poll(ctx)
				return
			}
			k.log.Warn("the runtime's events ended", "err", err)
			if clock.Sleep(ctx, time.Second) != nil {
				return
			}
			// What happened meanwhile was not told.
			if err := k.relist(ctx); err != nil {
				k.log.Warn("relist failed", "err", err)
			}
		}
	})
	for {
		select {
		case e := <-ch:
			if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
				k.work.Add(types.UID(uid))
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// poll wakes pods whose sandboxes or containers are not as a second ago.
func (k *Kubelet) poll(ctx context.Context) {
	var last map[types.UID]uint64
	for clock.Sleep(ctx, time.Second) == nil {
		begin := clock.Now()
		now, err := cri.Prints(ctx, k.deps.Runtime)
		timed(k.metrics.relist.With(nil), begin)
		if err != nil {
			k.log.Warn("relist failed", "err", err)
			continue
		}
		for uid, print := range now {
			if old, ok := last[uid]; !ok || old != print {
				k.work.Add(uid)
			}
		}
		for uid := range last {
			if _, ok := now[uid]; !ok {
				k.work.Add(uid)
			}
		}
		last = now
	}
}

func (k *Kubelet) relistLoop(ctx context.Context) error {
	for clock.Sleep(ctx, clock.Jitter(k.cfg.Relist, 0.1)) == nil {
		if err := k.relist(ctx); err != nil {
			k.log.Warn("relist failed", "err", err)
		}
	}
	return nil
}

// relist wakes every pod and adopts what runs without being wanted, to end it.
func (k *Kubelet) relist(ctx context.Context) error {
	for _, w := range k.workers() {
		k.work.Add(w.uid)
	}
	begin := clock.Now()
	known, err := cri.Pods(ctx, k.deps.Runtime)
	timed(k.metrics.relist.With(nil), begin)
	if err != nil {
		k.log.Warn("relist failed", "err", err)
		return nil
	}
	if !k.mirror.Synced() || !k.staticRead.Load() {
		return nil // nobody knows yet what is wanted
	}
	for uid, meta := range known {
		k.mu.Lock()
		w := k.pods[uid]
		if w == nil {
			w = orphan(uid, meta)
			k.pods[uid] = w
		}
		k.mu.Unlock()
		k.work.Add(uid)
	}
	return k.cleanDirs()
}

// cleanDirs removes the directories of pods that nobody knows.
func (k *Kubelet) cleanDirs() error {
	dirs, err := k.volumes.Orphans()
	if err != nil {
		k.log.Warn("looking for orphaned directories failed", "err", err)
		return nil
	}
	for _, uid := range dirs {
		if k.worker(uid) == nil {
			if err := k.volumes.Teardown(uid); err != nil {
				k.log.Warn("removing an orphaned directory failed", "err", err)
			}
		}
	}
	return nil
}

// refresh renews tokens and projected files now and then.
func (k *Kubelet) refresh(ctx context.Context) error {
	for clock.Sleep(ctx, clock.Jitter(time.Minute, 0.2)) == nil {
		for _, w := range k.workers() {
			k.work.Add(w.uid)
		}
	}
	return nil
}

// containerEvent reports on a container of pod.
func (k *Kubelet) containerEvent(pod *corev1.Pod, container, kind, reason, message string) {
	ref := client.Reference(pod)
	if container != "" {
		field := "spec.containers{" + container + "}"
		for i := range pod.Spec.InitContainers {
			if pod.Spec.InitContainers[i].Name == container {
				field = "spec.initContainers{" + container + "}"
			}
		}
		for i := range pod.Spec.EphemeralContainers {
			if pod.Spec.EphemeralContainers[i].Name == container {
				field = "spec.ephemeralContainers{" + container + "}"
			}
		}
		ref.FieldPath = field
	}
	k.deps.Events.EventRef(ref, kind, reason, "%s", message)
}

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/probe"
	"github.com/sampan-dev/sampan/kubelet/status"
	"github.com/sampan-dev/sampan/kubelet/volume"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// worker is what is remembered of one pod between syncs.
type worker struct {
	uid    types.UID
	static bool
	seen   time.Time // first

	mu       sync.Mutex
	pod      *corev1.Pod
	ending   bool
	gone     bool // its source no longer has it
	over     bool // nothing runs and nothing will
	verdict  *verdict
	cancel   context.CancelFunc // ends the sync under way
	status   *corev1.PodStatus
	grace    int64
	volumes  map[string]volume.Volume
	lateFrom time.Time // since when volumes that others attach are waited for
	handler  string    // of the runtime, as the pod's runtime class says
	admitted bool
	unknown  bool // adopted from the runtime; nothing else is known of it

	book     book
	pending  *corev1.PodCondition // a resize that waits
	progress *corev1.PodCondition // a resize under way

	crash   map[string]Crash // used by the sync alone
	killed  map[string]bool  // ended by us to start anew, by container id
	waiting map[string]corev1.ContainerStateWaiting
	stopped map[string]bool // preStop has run, by container id
}

// verdict ends a pod for a reason of the node's.
type verdict struct {
	phase           corev1.PodPhase
	reason, message string
	disruption      string // told in the condition DisruptionTarget; "" is not
}

func newWorker(pod *corev1.Pod) *worker {
	return &worker{
		uid: pod.UID, pod: pod, seen: clock.Now(), crash: map[string]Crash{}, killed: map[string]bool{},
		waiting: map[string]corev1.ContainerStateWaiting{}, stopped: map[string]bool{},
	}
}

// orphan is the worker of a pod that only the runtime knows.
func orphan(uid types.UID, meta *runtimeapi.PodSandboxMetadata) *worker {
	w := newWorker(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: uid}})
	w.ending, w.gone, w.unknown, w.grace = true, true, true, 30
	return w
}

// set takes in a new version of the pod.
func (w *worker) set(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pod, w.unknown = pod, false
	if pod.DeletionTimestamp == nil {
		return
	}
	w.end(gracePeriod(pod))
}

// end begins the pod's end, or hurries one that has begun; the lock is held.
func (w *worker) end(grace int64) {
	if w.ending && grace >= w.grace {
		return
	}
	w.ending, w.grace = true, grace
	if w.cancel != nil {
		w.cancel() // a pull or a hook must not hold the end up
	}
}

// remove says that the source no longer has the pod.
func (w *worker) remove() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	if !w.ending {
		w.end(gracePeriod(w.pod))
	}
}

// fail ends the pod by the node's own decision; the first one stands.
func (w *worker) fail(v verdict, grace int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.verdict == nil {
		w.verdict = &v
	}
	w.end(grace)
}

func (w *worker) view() (*corev1.Pod, *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.status
}

// rounds bounds how often one sync decides again; more follow in the next.
const rounds = 12

// sync brings one pod forward: observe, decide, do, report.
func (k *Kubelet) sync(ctx context.Context, uid types.UID) error {
	w := k.worker(uid)
	if w == nil {
		return nil
	}
	begin, kind := clock.Now(), "sync"
	defer func() { timed(k.metrics.podWorker.With(prometheus.Labels{"operation_type": kind}), begin) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	if w.status == nil {
		kind = "create"
	}
	pod, ending := w.pod, w.ending
	w.cancel = cancel
	if w.over && w.static && !w.gone {
		w.mu.Unlock()
		return nil
	}
	w.mu.Unlock()
	if !ending && semantics.Finished(pod) {
		ending = true // it ended before the agent did
	}
	if !ending && !k.admit(w, pod) {
		ending = true
	}
	if !ending && k.deadline(w, pod) {
		ending = true
	}
	if !ending {
		pod = k.granted(w, pod)
	}
	state, plan, err := k.bring(ctx, w, pod, ending)
	if state != nil {
		k.describe(w, pod, state, plan.Over)
	}
	if err != nil {
		return err
	}
	if !plan.Wake.IsZero() {
		k.work.AddAfter(uid, clock.Until(plan.Wake))
	}
	if plan.Over {
		return k.bury(ctx, w)
	}
	return nil
}

// bring decides and acts until there is nothing to do now.
func (k *Kubelet) bring(ctx context.Context, w *worker, pod *corev1.Pod, ending bool) (*cri.State, Plan, error) {
	var plan Plan
	var last *cri.State
	for range rounds {
		state, err := cri.Observe(ctx, k.deps.Runtime, w.uid)
		if err != nil {
			return last, plan, err
		}
		last = state
		if sb := state.Sandbox(); sb != nil {
			w.mu.Lock()
			w.handler = sb.Handler
			w.mu.Unlock()
		}
		if ending {
			k.probes.Ending(w.uid)
		} else {
			k.watch(w, pod, state)
		}
		k.resized(w, pod, state, nil)
		w.mu.Lock()
		v := View{
			Pod: pod, State: state, Now: clock.Now(), Ending: ending, Verdicts: k.verdicts(state), Crash: w.crash, MaxBackOff: k.cfg.MaxCrashDelay,
			Actual: w.book.Actual, Killed: maps.Clone(w.killed),
		}
		w.mu.Unlock()
		plan = Decide(v)
		w.mu.Lock()
		for name, wait := range plan.Waiting {
			if w.waiting[name].Reason != wait.Reason {
				k.containerEvent(pod, name, corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s", name, podText(pod)))
			}
			w.waiting[name] = corev1.ContainerStateWaiting{Reason: wait.Reason, Message: wait.Message}
		}
		for i := range state.Containers {
			if c := &state.Containers[i]; c.Running() {
				delete(w.waiting, c.Name)
			}
		}
		w.mu.Unlock()
		if len(plan.Actions) == 0 {
			if !ending && !plan.Over && w.volumes != nil {
				k.renew(ctx, w, pod)
			}
			k.keep(state)
			k.prune(ctx, state)
			return state, plan, nil
		}
		k.describe(w, pod, state, false)
		acted, err := k.act(ctx, w, pod, state, &plan)
		if err != nil {
			return last, plan, err
		}
		if !acted {
			return state, plan, nil
		}
	}
	k.work.Add(w.uid)
	return last, plan, nil
}

// renew brings a running pod's projected files up to date.
func (k *Kubelet) renew(ctx context.Context, w *worker, pod *corev1.Pod) {
	k.refs.hold(pod)
	volumes, err := k.volumes.Setup(ctx, pod)
	if err != nil {
		k.tellMount(ctx, w, pod, err)
		return
	}
	w.mu.Lock()
	w.volumes = volumes
	w.mu.Unlock()
	k.expand(ctx, pod)
}

func podText(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

// watch lets the probes of running containers begin.
func (k *Kubelet) watch(w *worker, pod *corev1.Pod, state *cri.State) {
	ip := ""
	if sb := state.Sandbox(); sb != nil && len(sb.IPs) > 0 {
		ip = sb.IPs[0]
	}
	if pod.Spec.HostNetwork && len(k.cfg.NodeIPs) > 0 {
		ip = k.cfg.NodeIPs[0]
	}
	for i := range state.Containers {
		cs := &state.Containers[i]
		if !cs.Running() {
			continue
		}
		c := containerOf(pod, cs.Name)
		if c == nil {
			continue
		}
		started, ready := false, false
		for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
			if old := semantics.ContainerStatus(list, cs.Name); old != nil && old.ContainerID == k.cfg.RuntimeName+"://"+cs.ID {
				started, ready = old.Started != nil && *old.Started, old.Ready
			}
		}
		k.probes.Watch(context.Background(), probe.Target{Pod: pod, Container: c, ID: cs.ID, IP: ip, Started: cs.Started}, started, ready)
	}
}

// containerOf finds a container of any kind by name.
func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			return &c
		}
	}
	return nil
}

func (k *Kubelet) verdicts(state *cri.State) map[string]Verdict {
	out := map[string]Verdict{}
	for _, c := range state.Running() {
		if v, ok := k.probes.Verdict(c.ID); ok {
			out[c.ID] = Verdict{Started: v.Started, Dead: v.Dead, StartFailed: v.StartFailed}
		}
	}
	return out
}

// keep ends the probes of containers that no longer run.
func (k *Kubelet) keep(state *cri.State) {
	alive := map[string]bool{}
	for _, c := range state.Running() {
		alive[c.ID] = true
	}
	k.probes.Keep(state.UID, alive)
}

// prune removes dead containers but the newest run of each name and the one before.
func (k *Kubelet) prune(ctx context.Context, state *cri.State) {
	seen := map[string]int{}
	for i := range state.Containers {
		c := &state.Containers[i]
		if seen[c.Name]++; seen[c.Name] > 2 && c.Exited() {
			if err := k.deps.Runtime.RemoveContainer(ctx, c.ID); err != nil {
				k.log.Warn("removing a dead container failed", "id", c.ID, "err", err)
				continue
			}
			k.removeLogs(state, c)
		}
	}
}

// deadline fails pods that were active for too long.
func (k *Kubelet) deadline(w *worker, pod *corev1.Pod) bool {
	d := pod.Spec.ActiveDeadlineSeconds
	w.mu.Lock()
	st := w.status
	w.mu.Unlock()
	start := pod.Status.StartTime
	if start == nil && st != nil {
		start = st.StartTime
	}
	if d == nil || start == nil {
		return false
	}
	end := start.Add(time.Duration(*d) * time.Second)
	if left := clock.Until(end); left > 0 {
		k.work.AddAfter(w.uid, left)
		return false
	}
	message := "Pod was active on the node longer than the specified deadline"
	k.containerEvent(pod, "", corev1.EventTypeNormal, "DeadlineExceeded", message)
	w.fail(verdict{corev1.PodFailed, "DeadlineExceeded", message, ""}, gracePeriod(pod))
	return true
}

// describe makes the pod's status and asks for it to be written.
func (k *Kubelet) describe(w *worker, pod *corev1.Pod, state *cri.State, over bool) {
	started, ready := map[string]bool{}, map[string]bool{}
	for _, c := range state.Running() {
		if v, ok := k.probes.Verdict(c.ID); ok {
			started[c.ID], ready[c.ID] = v.Started, v.Ready
		}
	}
	w.mu.Lock()
	old := w.status
	if old == nil {
		old = &pod.Status
	}
	was := old.Phase
	in := status.Input{
		Pod: pod, State: state, Old: old, Now: clock.Now(), HostIPs: k.cfg.NodeIPs, Waiting: maps.Clone(w.waiting),
		Started: started, Ready: ready, Message: k.terminationMessage, Runtime: k.cfg.RuntimeName, Over: over,
		Resize: w.resizeConditions(), Actual: w.book.Actual.all(), DeepReadOnly: k.nodes.RecursiveReadOnly(w.handler),
	}
	if w.verdict != nil {
		in.Disruption, in.Refused = w.verdict.disruption, !w.admitted
	}
	if w.verdict != nil && over {
		in.Phase, in.Reason, in.PhaseMessage = w.verdict.phase, w.verdict.reason, w.verdict.message
	}
	st := status.Make(in)
	w.status = &st
	if was == corev1.PodPending && st.Phase == corev1.PodRunning {
		timed(k.metrics.podStart.With(nil), w.seen)
		k.metrics.startedPods.Inc()
	}
	w.mu.Unlock()
	k.reports.Add(w.uid)
}

// report writes a pod's status to the API, and deletes a pod that has ended.
func (k *Kubelet) report(ctx context.Context, uid types.UID) error {
	w := k.worker(uid)
	if w == nil {
		return nil
	}
	w.mu.Lock()
	pod, st, over, gone, unknown := w.pod, w.status, w.over, w.gone, w.unknown
	w.mu.Unlock()
	if unknown || st == nil && !(over && pod.DeletionTimestamp != nil) {
		return nil
	}
	if w.static {
		pod = k.mirrorOf(ctx, w, pod)
		if pod == nil {
			return nil
		}
	} else if gone {
		return nil
	}
	api := client.Of[corev1.Pod](k.deps.Client, pod.Namespace)
	if now, ok := k.mirror.Get(pod.Namespace, pod.Name); ok && now.UID == pod.UID {
		pod = now
	}
	if st != nil {
		patch, err := status.Patch(pod, *st)
		if err != nil {
			return err
		}
		if patch != nil {
			_, err := api.Patch(ctx, pod.Name, "status", types.StrategicMergePatchType, patch)
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				return nil // a namesake, or none: the source will tell
			}
			if err != nil {
				return fmt.Errorf("report: pod %s/%s: %w", pod.Namespace, pod.Name, err)
			}
		}
	}
	if over && pod.DeletionTimestamp != nil && !w.static {
		none, id := int64(0), pod.UID
		err := api.Delete(ctx, pod.Name, &metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &id}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete: pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	return nil
}

// bury cleans up after a pod that has ended: its volumes, and once its source
// lets go of it, its sandboxes, logs and the memory of it.
func (k *Kubelet) bury(ctx context.Context, w *worker) error {
	w.mu.Lock()
	deleted := w.gone || w.pod.DeletionTimestamp != nil
	w.mu.Unlock()
	k.probes.Keep(w.uid, nil)
	if !deleted {
		if err := k.volumes.Release(w.uid); err != nil {
			return err
		}
		w.mu.Lock()
		w.over = true
		w.mu.Unlock()
		return nil
	}
	err := errors.Join(k.removeSandboxes(ctx, w.uid), k.volumes.Teardown(w.uid), k.removePodLogs(w), k.removeCgroup(w.uid))
	if err != nil {
		return fmt.Errorf("bury: pod %s: %w", w.uid, err)
	}
	k.retryResizes()
	k.refs.release(w.uid)
	k.images.Forget(string(w.uid))
	w.mu.Lock()
	w.over = true
	gone := w.gone
	w.mu.Unlock()
	k.reports.Add(w.uid)
	if gone {
		k.mu.Lock()
		delete(k.pods, w.uid)
		k.mu.Unlock()
		if w.static {
			k.staticGone(ctx, w)
		}
	}
	return nil
}

func (k *Kubelet) removeSandboxes(ctx context.Context, uid types.UID) error {
	boxes, err := k.deps.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{cri.PodUIDLabel: string(uid)}})
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range boxes {
		errs = append(errs, k.deps.Runtime.RemovePodSandbox(ctx, b.Id))
	}
	return errors.Join(errs...)
}

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
	"github.com/sampan-dev/sampan/kubelet/cri"
	"github.com/sampan-dev/sampan/kubelet/image"
	"github.com/sampan-dev/sampan/kubelet/probe"
	"github.com/sampan-dev/sampan/kubelet/spec"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// retryAfter is how soon a container that could not be made is tried again.
const retryAfter = 10 * time.Second

// act carries a plan out. acted is false when all that was asked must wait.
func (k *Kubelet) act(ctx context.Context, w *worker, pod *corev1.Pod, state *cri.State, plan *Plan) (acted bool, err error) {
	for _, a := range plan.Actions {
		switch {
		case a.End != nil:
			return true, k.endPod(ctx, w, pod, state)
		case a.Stop != nil:
			k.containerEvent(pod, a.Stop.Name, corev1.EventTypeNormal, "Killing", a.Stop.Message)
			grace := gracePeriod(pod)
			if a.Stop.Grace != nil {
				grace = *a.Stop.Grace
			}
			if err := k.stopContainer(ctx, w, pod, state.ByID(a.Stop.ID), grace); err != nil {
				return acted, err
			}
			w.mu.Lock()
			w.killed[a.Stop.ID] = true
			w.mu.Unlock()
			acted = true
		case a.Resize != nil:
			err := k.resize(ctx, w, pod, state, a.Resize)
			k.resized(w, pod, state, err)
			if err != nil {
				k.log.Debug("a resize failed", "pod", pod.Name, "err", err)
				plan.wake(clock.Now().Add(retryAfter))
				continue
			}
			acted = true
		case a.Sandbox != nil:
			if err := k.prepare(ctx, w, pod); err != nil {
				return acted, err
			}
			if err := k.newSandbox(ctx, pod, a.Sandbox.Attempt); err != nil {
				return acted, err
			}
			acted = true
		case a.Start != nil:
			if err := k.prepare(ctx, w, pod); err != nil {
				return acted, err
			}
			if wait := k.startContainer(ctx, w, pod, state, a.Start); wait != nil {
				if ctx.Err() != nil {
					return acted, ctx.Err()
				}
				w.mu.Lock()
				w.waiting[a.Start.Container.Name] = *wait
				w.mu.Unlock()
				after := retryAfter
				if left := k.images.Wait(string(w.uid), a.Start.Container.Image); left > 0 {
					after = left
				}
				plan.wake(clock.Now().Add(after))
				// What failed leaves a dead container or none; the back-off counts either.
				if next, ok := plan.Crash[a.Start.Container.Name]; ok {
					w.crash[a.Start.Container.Name] = next
				}
				continue
			}
			if next, ok := plan.Crash[a.Start.Container.Name]; ok {
				w.crash[a.Start.Container.Name] = next
			}
			acted = true
		}
	}
	return acted, nil
}

func gracePeriod(pod *corev1.Pod) int64 {
	if g := pod.DeletionGracePeriodSeconds; g != nil {
		return *g
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return 30
}

// prepare makes all that containers need before they are made: directories,
// control group, volumes.
func (k *Kubelet) prepare(ctx context.Context, w *worker, pod *corev1.Pod) error {
	k.refs.hold(pod)
	if err := k.makeCgroup(pod); err != nil {
		k.containerEvent(pod, "", corev1.EventTypeWarning, "FailedCreatePodContainer", fmt.Sprintf("unable to ensure pod container exists: %v", err))
		return err
	}
	volumes, err := k.volumes.Setup(ctx, pod)
	if err != nil {
		k.tellMount(ctx, w, pod, err)
		return fmt.Errorf("prepare: pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	w.mu.Lock()
	w.volumes, w.lateFrom = volumes, time.Time{}
	w.mu.Unlock()
	k.expand(ctx, pod)
	return nil
}

// Volumes that others are attaching are looked for often, and are late after
// upstream's two minutes.
const (
	attachLook = time.Second
	attachLate = 2*time.Minute + 3*time.Second
)

// tellMount tells why a pod's volumes are not there: at once when something
// failed, now and then when others are still at work.
func (k *Kubelet) tellMount(ctx context.Context, w *worker, pod *corev1.Pod, err error) {
	if ctx.Err() != nil {
		return
	}
	var wait interface{ Waiting() bool }
	if !errors.As(err, &wait) {
		k.containerEvent(pod, "", corev1.EventTypeWarning, "FailedMount", err.Error())
		return
	}
	k.work.AddAfter(w.uid, attachLook)
	now := clock.Now()
	w.mu.Lock()
	if w.lateFrom.IsZero() {
		w.lateFrom = now
	}
	late := now.Sub(w.lateFrom) >= attachLate
	if late {
		w.lateFrom = now
	}
	w.mu.Unlock()
	if late {
		k.containerEvent(pod, "", corev1.EventTypeWarning, "FailedMount", fmt.Sprintf("Unable to attach or mount volumes: %v: timed out waiting for the condition", err))
	}
}

func (k *Kubelet) podLogDir(pod *corev1.Pod) string {
	return filepath.Join(k.cfg.PodLogs, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

func (k *Kubelet) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	return spec.SandboxConfig(pod, &k.node, attempt, k.podLogDir(pod), k.cgroupParent(pod))
}

func (k *Kubelet) newSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) error {
	config, err := k.sandboxConfig(pod, attempt)
	if err == nil {
		err = os.MkdirAll(config.LogDirectory, 0o755)
	}
	handler := ""
	if err == nil && pod.Spec.RuntimeClassName != nil && *pod.Spec.RuntimeClassName != "" {
		handler, err = k.refs.handler(ctx, *pod.Spec.RuntimeClassName)
	}
	if err == nil {
		_, err = k.deps.Runtime.RunPodSandbox(ctx, config, handler)
	}
	if err != nil {
		if ctx.Err() == nil {
			k.containerEvent(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
		}
		return fmt.Errorf("sandbox: pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// startContainer makes a container run, or says why it waits.
func (k *Kubelet) startContainer(ctx context.Context, w *worker, pod *corev1.Pod, state *cri.State, s *Start) *corev1.ContainerStateWaiting {
	c := s.Container
	event := func(kind, reason, message string) { k.containerEvent(pod, c.Name, kind, reason, message) }
	fail := func(reason string, err error) *corev1.ContainerStateWaiting {
		k.metrics.started(s.Kind, reason)
		if ctx.Err() == nil {
			event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error())
		}
		return &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
	}
	box, err := k.sandboxConfig(pod, s.Attempt)
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	want := image.Want{Image: c.Image, Policy: c.ImagePullPolicy, Pod: string(pod.UID), Secrets: k.refs.pullSecrets(ctx, pod), Sandbox: box, Event: event}
	img, waits := k.ensure(ctx, want)
	if waits != nil {
		return waits
	}
	images, waits := k.imageVolumes(ctx, pod, c, want)
	if waits != nil {
		return waits
	}
	config, err := k.containerConfig(ctx, w, pod, state, s, img, images)
	if err != nil {
		return fail("CreateContainerConfigError", err)
	}
	id, err := k.deps.Runtime.CreateContainer(ctx, s.SandboxID, config, box)
	if err != nil {
		return fail("CreateContainerError", cri.Plain(err))
	}
	if s.Kind != Ephemeral {
		k.actual(w, c.Name, c.Resources, pod.Spec.Resources)
	}
	event(corev1.EventTypeNormal, "Created", "Container created")
	if err := k.deps.Runtime.StartContainer(ctx, id); err != nil {
		return fail("RunContainerError", cri.Plain(err))
	}
	event(corev1.EventTypeNormal, "Started", "Container started")
	k.metrics.started(s.Kind, "")
	w.mu.Lock()
	delete(w.waiting, c.Name)
	w.mu.Unlock()
	k.linkLog(pod, c.Name, id, filepath.Join(box.LogDirectory, config.LogPath))
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		if err := k.hook(ctx, pod, c, id, c.Lifecycle.PostStart, podIP(state)); err != nil {
			event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
			event(corev1.EventTypeNormal, "Killing", "FailedPostStartHook")
			if err := k.deps.Runtime.StopContainer(ctx, id, gracePeriod(pod)); err != nil {
				k.log.Warn("stopping after a failed hook failed", "container", c.Name, "err", err)
			}
			return &corev1.ContainerStateWaiting{Reason: "PostStartHookError", Message: "PostStartHook failed"}
		}
	}
	return nil
}

// ensure makes an image be there, or says why its container waits.
func (k *Kubelet) ensure(ctx context.Context, want image.Want) (*runtimeapi.Image, *corev1.ContainerStateWaiting) {
	img, err := k.images.Ensure(ctx, want)
	var e *image.Error
	switch {
	case err == nil:
		return img, nil
	case !errors.As(err, &e):
		return nil, &corev1.ContainerStateWaiting{Reason: image.ErrImagePull, Message: err.Error()}
	case e.Reason == image.ImagePullBackOff:
		want.Event(corev1.EventTypeWarning, "Failed", "Error: "+e.Reason)
	}
	return nil, &corev1.ContainerStateWaiting{Reason: e.Reason, Message: e.Message}
}

func podIP(state *cri.State) string {
	if sb := state.Sandbox(); sb != nil && len(sb.IPs) > 0 {
		return sb.IPs[0]
	}
	return ""
}

// containerConfig gathers what spec needs.
func (k *Kubelet) containerConfig(ctx context.Context, w *worker, pod *corev1.Pod, state *cri.State, s *Start, img *runtimeapi.Image, images map[string]*runtimeapi.ImageSpec) (*runtimeapi.ContainerConfig, error) {
	ips := k.cfg.NodeIPs
	if sb := state.Sandbox(); sb != nil && !pod.Spec.HostNetwork {
		ips = sb.IPs
	}
	in := &spec.Input{
		Pod: pod, Container: s.Container, Node: &k.node, Restarts: s.Restarts, ImageRef: img.Id, ImageUser: img,
		PodIPs: ips, LogPath: spec.LogPath(s.Container.Name, s.Restarts), QOS: semantics.QoS(pod), MemoryCapacity: k.memoryCapacity(), Static: w.static,
	}
	in.Target = targetOf(pod, state, s)
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	services, err := k.serviceEnv(ctx, pod.Namespace, links, w.static)
	if err != nil {
		return nil, err
	}
	if in.Env, err = spec.Environ(ctx, in, k.refs, services); err != nil {
		return nil, err
	}
	if in.Mounts, err = k.mounts(w, in, images); err != nil {
		return nil, err
	}
	if in.Devices, err = devices(w, s.Container); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(k.podLogDir(pod), s.Container.Name), 0o755); err != nil {
		return nil, err
	}
	return spec.ContainerConfig(in)
}

// servicesWait is how long a container waits for the services to be known.
const servicesWait = 5 * time.Second

// serviceEnv are the variables that name services. Without them a container
// would not find the API; a static pod must not wait, for it may be the API.
func (k *Kubelet) serviceEnv(ctx context.Context, namespace string, links, static bool) (map[string]string, error) {
	if !static {
		ctx, cancel := context.WithTimeout(ctx, servicesWait)
		defer cancel()
		if err := k.services.WaitSynced(ctx); err != nil {
			return nil, errors.New("services have not yet been read at least once, cannot construct envs")
		}
	}
	return spec.ServiceEnv(k.services.List(""), namespace, links), nil
}

// targetOf is the container whose processes a debugging container shall see.
func targetOf(pod *corev1.Pod, state *cri.State, s *Start) string {
	if s.Kind == Ephemeral {
		for i := range pod.Spec.EphemeralContainers {
			e := &pod.Spec.EphemeralContainers[i]
			if e.Name == s.Container.Name && e.TargetContainerName != "" {
				if c := state.Container(e.TargetContainerName); c != nil {
					return c.ID
				}
			}
		}
	}
	return ""
}

// hook runs what a container wants done at its start or before its end.
func (k *Kubelet) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler, ip string) error {
	switch {
	case h.Exec != nil:
		_, _, err := k.deps.Runtime.ExecSync(ctx, id, h.Exec.Command, 0)
		return err
	case h.Sleep != nil:
		return clock.Sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
	case h.HTTPGet != nil:
		// Any answer will do: what it says is not judged.
		r, msg, err := probe.Get(ctx, &probe.Target{Pod: pod, Container: c, ID: id, IP: ip}, h.HTTPGet)
		if err == nil && r == probe.Unknown {
			err = errors.New(msg)
		}
		return err
	}
	return errors.New("invalid handler")
}

// endPod stops all containers, each with the grace that is left, and then the
// sandboxes. Sidecars end after the others, in reverse order.
func (k *Kubelet) endPod(ctx context.Context, w *worker, pod *corev1.Pod, state *cri.State) error {
	w.mu.Lock()
	grace := w.grace
	if !w.ending {
		grace = gracePeriod(pod)
	}
	w.mu.Unlock()
	begin := clock.Now()
	var first, last []*cri.Container
	for _, c := range state.Running() {
		if spec := containerOf(pod, c.Name); spec != nil && semantics.Sidecar(spec) {
			last = append(last, c)
		} else {
			first = append(first, c)
		}
	}
	left := func() int64 { return max(grace-int64(clock.Since(begin)/time.Second), min(grace, 2)) }
	if err := k.stopAll(ctx, w, pod, first, grace); err != nil {
		return err
	}
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		for _, c := range last {
			if c.Name == pod.Spec.InitContainers[i].Name {
				if err := k.stopAll(ctx, w, pod, []*cri.Container{c}, left()); err != nil {
					return err
				}
			}
		}
	}
	for _, sb := range state.Sandboxes {
		if sb.Ready {
			if err := k.deps.Runtime.StopPodSandbox(ctx, sb.ID); err != nil {
				k.containerEvent(pod, "", corev1.EventTypeWarning, "FailedKillPod", fmt.Sprintf("error killing pod: %v", err))
				return fmt.Errorf("stop: sandbox %s: %w", sb.ID, err)
			}
		}
	}
	return nil
}

func (k *Kubelet) stopAll(ctx context.Context, w *worker, pod *corev1.Pod, list []*cri.Container, grace int64) error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, c := range list {
		all.Add(1)
		k.containerEvent(pod, c.Name, corev1.EventTypeNormal, "Killing", "Stopping container "+c.Name)
		run.Detach(ctx, "stop", func(ctx context.Context) {
			defer all.Done()
			errs[i] = k.stopContainer(ctx, w, pod, c, grace)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// stopContainer runs the preStop hook, once, and stops the container in the
// grace that is left.
func (k *Kubelet) stopContainer(ctx context.Context, w *worker, pod *corev1.Pod, cs *cri.Container, grace int64) error {
	begin := clock.Now()
	hook := cs.PreStop
	c := containerOf(pod, cs.Name)
	if c != nil && c.Lifecycle != nil {
		hook = c.Lifecycle.PreStop
	}
	w.mu.Lock()
	done := w.stopped[cs.ID]
	w.stopped[cs.ID] = true
	w.mu.Unlock()
	if hook != nil && grace > 0 && !done {
		if c == nil {
			c = &corev1.Container{Name: cs.Name}
		}
		hctx, cancel := context.WithTimeout(ctx, time.Duration(grace)*time.Second)
		ip := ""
		if st, err := cri.Observe(ctx, k.deps.Runtime, w.uid); err == nil {
			ip = podIP(st)
		}
		if err := k.hook(hctx, pod, c, cs.ID, hook, ip); err != nil && ctx.Err() == nil {
			k.containerEvent(pod, cs.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
		cancel()
	}
	if grace > 0 {
		grace = max(grace-int64(clock.Since(begin)/time.Second), 2)
	}
	if err := k.deps.Runtime.StopContainer(ctx, cs.ID, grace); err != nil && !cri.NotFound(err) {
		return fmt.Errorf("stop: container %s: %w", cs.Name, err)
	}
	return nil
}

// Bounds of a termination message.
const (
	maxMessage      = 4096
	maxMessageLines = 80
	maxLogMessage   = 2048
)

// terminationMessage reads a container's last words.
func (k *Kubelet) terminationMessage(cs *cri.Container) string {
	text := cs.Message
	if cs.TerminationHostPath != "" {
		if f, err := os.Open(cs.TerminationHostPath); err == nil {
			b, err := io.ReadAll(io.LimitReader(f, maxMessage))
			_ = f.Close()
			if err == nil && len(b) > 0 {
				return strings.ToValidUTF8(string(b), "")
			}
		}
	}
	if text == "" && cs.TerminationPolicy == corev1.TerminationMessageFallbackToLogsOnError && cs.ExitCode != 0 {
		return k.logTail(cs)
	}
	return text
}

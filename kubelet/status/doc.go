// Package status finds the words for how a pod is.
//
// Job: PodStatus from what the runtime shows, and the difference to what the
// API has as a patch.
//
// Not its job: deciding what to do about it, sending it.
//
// Invariants: pure; a condition's transition time moves only with its status;
// conditions of others (readiness gates, scheduler) are kept.
package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sampan-dev/sampan/kubelet/cri"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// Input is what a status is made of.
type Input struct {
	Pod     *corev1.Pod
	State   *cri.State
	Old     *corev1.PodStatus // the last one
	Now     time.Time
	HostIPs []string
	// Waiting says why containers do not run.
	Waiting map[string]corev1.ContainerStateWaiting
	// Started and Ready are what probes say of running containers, by id.
	Started, Ready map[string]bool
	// Message reads the termination message of an ended container.
	Message func(c *cri.Container) string
	Runtime string // the runtime's name, as in containerd://…
	// Resize are the conditions that tell of a resize; Actual is what containers
	// have of the node's resources.
	Resize []corev1.PodCondition
	Actual map[string]corev1.ResourceRequirements
	// DeepReadOnly: the runtime can mount recursively read only.
	DeepReadOnly bool
	// Over: nothing runs and nothing will.
	Over bool
	// Disruption says why the node ends the pod; "" when it does not.
	Disruption string
	// Refused: the pod was never let in and has no containers to speak of.
	Refused bool
	// Verdict overrides phase, reason and message when its Phase is set.
	Phase                corev1.PodPhase
	Reason, PhaseMessage string
}

// Make returns the status of a pod.
func Make(in Input) corev1.PodStatus {
	out := corev1.PodStatus{QOSClass: semantics.QoS(in.Pod), ObservedGeneration: in.Pod.Generation}
	if in.Old != nil {
		out.StartTime = in.Old.StartTime
		out.Conditions = slices.Clone(in.Old.Conditions)
		out.NominatedNodeName = in.Old.NominatedNodeName
		out.Resize = in.Old.Resize
		out.ResourceClaimStatuses = in.Old.ResourceClaimStatuses
	}
	if in.Refused && in.Phase != "" {
		out.Phase, out.Reason, out.Message = in.Phase, in.Reason, in.PhaseMessage
		out.StartTime = &metav1.Time{Time: in.Now.Truncate(time.Second)}
		return out
	}
	if out.StartTime == nil {
		out.StartTime = &metav1.Time{Time: in.Now.Truncate(time.Second)}
	}
	if len(in.HostIPs) > 0 {
		out.HostIP = in.HostIPs[0]
		for _, ip := range in.HostIPs {
			out.HostIPs = append(out.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	setIPs(&out, in)
	for i := range in.Pod.Spec.InitContainers {
		out.InitContainerStatuses = append(out.InitContainerStatuses, in.container(&in.Pod.Spec.InitContainers[i], true))
	}
	for i := range in.Pod.Spec.Containers {
		out.ContainerStatuses = append(out.ContainerStatuses, in.container(&in.Pod.Spec.Containers[i], false))
	}
	for i := range in.Pod.Spec.EphemeralContainers {
		c := corev1.Container(in.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		st := in.container(&c, false)
		st.Ready, st.Started = false, nil
		out.EphemeralContainerStatuses = append(out.EphemeralContainerStatuses, st)
	}
	if in.Over {
		in.settle(&out)
	}
	out.Phase = in.phase(&out)
	if in.Phase != "" {
		out.Phase, out.Reason, out.Message = in.Phase, in.Reason, in.PhaseMessage
	} else if in.Old != nil && semantics.Finished(&corev1.Pod{Status: *in.Old}) {
		out.Phase, out.Reason, out.Message = in.Old.Phase, in.Old.Reason, in.Old.Message
	}
	in.conditions(&out)
	return out
}

func setIPs(out *corev1.PodStatus, in Input) {
	var ips []string
	if in.Pod.Spec.HostNetwork {
		ips = in.HostIPs
	} else if sb := in.State.Sandbox(); sb != nil && (sb.Ready || in.Over) {
		ips = sb.IPs
	}
	if len(ips) == 0 && in.Old != nil && in.Over {
		out.PodIP, out.PodIPs = in.Old.PodIP, in.Old.PodIPs
		return
	}
	for i, ip := range ips {
		if i == 0 {
			out.PodIP = ip
		}
		out.PodIPs = append(out.PodIPs, corev1.PodIP{IP: ip})
	}
}

// container returns the status of one container.
func (in *Input) container(c *corev1.Container, init bool) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: ptr(false)}
	old := in.old(c.Name)
	cs := in.State.Container(c.Name)
	wait, waiting := in.Waiting[c.Name]
	if cs == nil {
		if old != nil && (old.State.Terminated != nil || old.RestartCount > 0) { // forgotten by the runtime: keep what is known
			st = *old.DeepCopy()
			if old.State.Running != nil {
				st.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					Reason: "ContainerStatusUnknown", ExitCode: 137,
					Message: "The container could not be located when the pod was terminated",
				}}
			}
		}
		if waiting || st.State.Terminated == nil {
			if !waiting {
				wait = corev1.ContainerStateWaiting{Reason: in.initialReason()}
			}
			if old != nil {
				st.LastTerminationState = old.LastTerminationState
			}
			st.State = corev1.ContainerState{Waiting: &wait}
		}
		st.Ready = init && st.State.Terminated != nil && st.State.Terminated.ExitCode == 0
		return st
	}
	st.RestartCount = int32(cs.Restarts)
	st.ContainerID = in.Runtime + "://" + cs.ID
	st.ImageID = cs.ImageID
	if cs.ImageRef != "" {
		st.ImageID = cs.ImageRef
	}
	if cs.Image != "" && !strings.HasPrefix(cs.Image, "sha256:") {
		st.Image = cs.Image
	}
	in.resources(c, cs, &st)
	switch {
	case cs.Running():
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: cs.Started}}
		st.Started = ptr(in.Started[cs.ID])
		// An ordinary init container is ready by ending well, not by running.
		st.Ready = in.Ready[cs.ID] && (!init || sidecarIn(in.Pod, c.Name))
		if u := cs.User.GetLinux(); u != nil {
			st.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
		}
		if prev := in.previous(cs); prev != nil {
			st.LastTerminationState.Terminated = in.terminated(prev)
		} else if old != nil {
			st.LastTerminationState = old.LastTerminationState
		}
	case cs.Exited():
		t := in.terminated(cs)
		// Only what will run again waits for that.
		if waiting && !in.Over && semantics.Restarts(in.Pod, c, cs.ExitCode) {
			st.State.Waiting, st.LastTerminationState.Terminated = &wait, t
		} else {
			st.State.Terminated = t
			if prev := in.previous(cs); prev != nil {
				st.LastTerminationState.Terminated = in.terminated(prev)
			}
		}
		st.Ready = init && !sidecarIn(in.Pod, c.Name) && cs.ExitCode == 0
	default:
		if !waiting {
			wait = corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		}
		st.State.Waiting = &wait
		if prev := in.previous(cs); prev != nil {
			st.LastTerminationState.Terminated = in.terminated(prev)
		}
	}
	return st
}

func sidecarIn(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name && semantics.Sidecar(&c) })
}

func (in *Input) initialReason() string {
	if len(in.Pod.Spec.InitContainers) > 0 && !in.initialized(nil) {
		return "PodInitializing"
	}
	return "ContainerCreating"
}

func (in *Input) old(name string) *corev1.ContainerStatus {
	if in.Old == nil {
		return nil
	}
	for _, l := range [][]corev1.ContainerStatus{in.Old.ContainerStatuses, in.Old.InitContainerStatuses, in.Old.EphemeralContainerStatuses} {
		if s := semantics.ContainerStatus(l, name); s != nil {
			return s
		}
	}
	return nil
}

// previous returns the run before cs.
func (in *Input) previous(cs *cri.Container) *cri.Container {
	for i := range in.State.Containers {
		if c := &in.State.Containers[i]; c.Name == cs.Name && c.ID != cs.ID && c.Exited() && c.Restarts < cs.Restarts {
			return c
		}
	}
	return nil
}

func (in *Input) terminated(cs *cri.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: cs.ExitCode, Reason: cs.Reason, Message: cs.Message, ContainerID: in.Runtime + "://" + cs.ID,
		StartedAt: metav1.Time{Time: cs.Started}, FinishedAt: metav1.Time{Time: cs.Finish},
	}
	if in.Message != nil {
		if m := in.Message(cs); m != "" {
			t.Message = m
		}
	}
	return t
}

// resources reports what the container was granted and what it really has.
func (in *Input) resources(c *corev1.Container, cs *cri.Container, st *corev1.ContainerStatus) {
	st.AllocatedResources = c.Resources.Requests.DeepCopy()
	st.Resources = c.Resources.DeepCopy()
	if have, ok := in.Actual[c.Name]; ok && cs.Running() {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			replace(st.Resources.Requests, have.Requests, name)
			replace(st.Resources.Limits, have.Limits, name)
		}
	}
	for _, m := range c.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			s.RecursiveReadOnly = ptr(corev1.RecursiveReadOnlyDisabled)
			if r := m.RecursiveReadOnly; r != nil && (*r == corev1.RecursiveReadOnlyEnabled || *r == corev1.RecursiveReadOnlyIfPossible && in.DeepReadOnly) {
				s.RecursiveReadOnly = ptr(corev1.RecursiveReadOnlyEnabled)
			}
		}
		st.VolumeMounts = append(st.VolumeMounts, s)
	}
	if cs.StopSignal != 0 {
		st.StopSignal = ptr(corev1.Signal(cs.StopSignal.String()))
	}
}

// replace makes a resource that is granted tell what there really is of it.
func replace(list, have corev1.ResourceList, name corev1.ResourceName) {
	if _, ok := list[name]; ok {
		if q, ok := have[name]; ok {
			list[name] = q
		}
	}
}

func ptr[T any](v T) *T { return &v }

// initialized says whether the ordinary containers may run.
func (in *Input) initialized(statuses []corev1.ContainerStatus) bool {
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		cs := in.State.Container(c.Name)
		done := cs != nil && cs.Exited() && cs.ExitCode == 0
		if semantics.Sidecar(c) {
			done = cs != nil && (cs.Running() && in.Started[cs.ID] || cs.Exited())
		}
		if !done {
			if s := semantics.ContainerStatus(statuses, c.Name); s != nil && s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 {
				continue
			}
			for j := range in.Pod.Spec.Containers { // an ordinary one exists: it was initialized
				if in.State.Container(in.Pod.Spec.Containers[j].Name) != nil {
					return true
				}
			}
			return false
		}
	}
	return true
}

// conditions sets the conditions that are the node agent's.
func (in *Input) conditions(out *corev1.PodStatus) {
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: in.Pod.Generation}
		if ok {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
			if reason == "PodCompleted" {
				c.Reason = reason
			}
		}
		semantics.SetCondition(out, c, in.Now.Truncate(time.Second))
	}
	out.Conditions = slices.DeleteFunc(out.Conditions, func(c corev1.PodCondition) bool { return resizing(c.Type) })
	for _, c := range in.Resize {
		if in.Old != nil {
			if old := semantics.Condition(in.Old, c.Type); old != nil {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		if c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = metav1.Time{Time: in.Now.Truncate(time.Second)}
		}
		out.Conditions = append(out.Conditions, c)
	}
	if in.Disruption != "" {
		semantics.SetCondition(out, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet,
			Message: in.Disruption, ObservedGeneration: in.Pod.Generation,
		}, in.Now.Truncate(time.Second))
	}
	sb := in.State.Sandbox()
	set(corev1.PodReadyToStartContainers, sb != nil && sb.Ready && (in.Pod.Spec.HostNetwork || len(sb.IPs) > 0), "", "")
	finished := out.Phase == corev1.PodSucceeded || out.Phase == corev1.PodFailed

	var unstarted []string
	for i, st := range out.InitContainerStatuses {
		if !st.Ready && !(semantics.Sidecar(&in.Pod.Spec.InitContainers[i]) && st.Started != nil && *st.Started) {
			unstarted = append(unstarted, st.Name)
		}
	}
	switch {
	case out.Phase == corev1.PodSucceeded:
		set(corev1.PodInitialized, true, "PodCompleted", "")
	case len(unstarted) == 0 || in.initialized(out.InitContainerStatuses):
		set(corev1.PodInitialized, true, "", "")
	default:
		set(corev1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: %s", bracket(unstarted)))
	}
	var unready []string
	for i, st := range out.InitContainerStatuses {
		if semantics.Sidecar(&in.Pod.Spec.InitContainers[i]) && !st.Ready {
			unready = append(unready, st.Name)
		}
	}
	for _, st := range out.ContainerStatuses {
		if !st.Ready {
			unready = append(unready, st.Name)
		}
	}
	reason, message := "", ""
	switch {
	case out.Phase == corev1.PodSucceeded:
		reason = "PodCompleted"
	case out.Phase == corev1.PodFailed:
		reason = "PodFailed"
	case len(unready) > 0:
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", bracket(unready))
	}
	ready := !finished && len(unready) == 0
	setPlain(out, in, corev1.ContainersReady, ready, reason, message)
	if ready {
		var gates []string
		for _, g := range in.Pod.Spec.ReadinessGates {
			if c := semantics.Condition(&in.Pod.Status, g.ConditionType); c == nil {
				gates = append(gates, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
			} else if c.Status != corev1.ConditionTrue {
				gates = append(gates, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", g.ConditionType, c.Status))
			}
		}
		if len(gates) > 0 {
			ready, reason, message = false, "ReadinessGatesNotReady", strings.Join(gates, ", ")
		}
	}
	setPlain(out, in, corev1.PodReady, ready, reason, message)
	if semantics.Condition(out, corev1.PodScheduled) == nil {
		set(corev1.PodScheduled, true, "", "")
	}
}

func setPlain(out *corev1.PodStatus, in *Input, t corev1.PodConditionType, ok bool, reason, message string) {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: in.Pod.Generation}
	if ok {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
	}
	semantics.SetCondition(out, c, in.Now.Truncate(time.Second))
}

func bracket(names []string) string { return "[" + strings.Join(names, " ") + "]" }

// owned are the conditions that the node agent writes.
func owned(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady, corev1.PodScheduled:
		return true
	}
	return resizing(t)
}

func resizing(t corev1.PodConditionType) bool {
	return t == corev1.PodResizePending || t == corev1.PodResizeInProgress
}

// Patch returns the strategic merge patch that turns the API's status of pod
// into next; nil when nothing differs. The uid guards against a namesake.
func Patch(pod *corev1.Pod, next corev1.PodStatus) ([]byte, error) {
	next = *next.DeepCopy()
	for _, c := range pod.Status.Conditions { // others' conditions as they are now
		if !owned(c.Type) {
			next.Conditions = slices.DeleteFunc(next.Conditions, func(x corev1.PodCondition) bool { return x.Type == c.Type })
			next.Conditions = append(next.Conditions, c)
		}
	}
	if equality.Semantic.DeepEqual(pod.Status, next) {
		return nil, nil
	}
	marshal := func(s corev1.PodStatus) ([]byte, error) {
		return json.Marshal(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}, Status: s})
	}
	before, err := marshal(pod.Status)
	if err != nil {
		return nil, err
	}
	after, err := marshal(next)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("patch: pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		return nil, err
	}
	m["metadata"] = map[string]any{"uid": string(pod.UID)}
	return json.Marshal(m)
}

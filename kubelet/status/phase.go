package status

import (
	corev1 "k8s.io/api/core/v1"

	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// tally counts a pod's containers by how they are.
type tally struct {
	pendingInit, pendingSidecars, lostInit        int
	unknown, running, waiting, stopped, succeeded int
	final                                         int // of the stopped: will not run again
}

// phase sums the pod up in one word.
func (in *Input) phase(out *corev1.PodStatus) corev1.PodPhase {
	var t tally
	for i := range in.Pod.Spec.InitContainers {
		c, st := &in.Pod.Spec.InitContainers[i], &out.InitContainerStatuses[i]
		if semantics.Sidecar(c) {
			t.sidecar(st)
		} else {
			t.init(in.Pod, c, st)
		}
	}
	for i := range in.Pod.Spec.Containers {
		t.ordinary(in.Pod, &in.Pod.Spec.Containers[i], &out.ContainerStatuses[i])
	}
	switch {
	case t.lostInit > 0:
		return corev1.PodFailed
	case !in.Over && (t.pendingInit > 0 || t.pendingSidecars > 0 && !in.everRan() || t.waiting > 0):
		return corev1.PodPending
	case t.running > 0 && t.unknown == 0:
		return corev1.PodRunning
	case t.running == 0 && t.stopped > 0 && t.unknown == 0:
		switch {
		case !in.Over && t.stopped != t.final: // some are about to start again
			return corev1.PodRunning
		case t.stopped == t.succeeded:
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	case in.Over: // it ended before it began
		return corev1.PodFailed
	}
	return corev1.PodPending
}

// settle gives every container of an initialized pod that is over an end: one
// that never ran will not, and whoever counts ended pods must see it.
func (in *Input) settle(out *corev1.PodStatus) {
	if !in.initialized(out.InitContainerStatuses) {
		return
	}
	for i := range out.ContainerStatuses {
		st := &out.ContainerStatuses[i]
		if st.State.Terminated == nil && st.LastTerminationState.Terminated == nil {
			st.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason: "ContainerStatusUnknown", ExitCode: 137, Message: "The container could not be located when the pod was terminated",
			}}
		}
	}
}

// everRan says whether an ordinary container was ever made, for which all
// sidecars had to be up.
func (in *Input) everRan() bool {
	for i := range in.Pod.Spec.Containers {
		if in.State.Container(in.Pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

// ended returns how a container ended that does not run now.
func ended(st *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if st.State.Terminated != nil {
		return st.State.Terminated
	}
	if st.State.Waiting != nil {
		return st.LastTerminationState.Terminated
	}
	return nil
}

func (t *tally) init(pod *corev1.Pod, c *corev1.Container, st *corev1.ContainerStatus) {
	switch e := ended(st); {
	case e == nil:
		t.pendingInit++
	case e.ExitCode != 0 && !semantics.Restarts(pod, c, e.ExitCode):
		t.lostInit++
	case e.ExitCode != 0:
		t.pendingInit++
	}
}

func (t *tally) sidecar(st *corev1.ContainerStatus) {
	switch {
	case st.State.Running != nil:
		t.running++
		if st.Started == nil || !*st.Started {
			t.pendingSidecars++
		}
	case st.State.Waiting != nil && st.LastTerminationState.Terminated == nil:
		t.pendingSidecars++
		t.waiting++
	}
}

func (t *tally) ordinary(pod *corev1.Pod, c *corev1.Container, st *corev1.ContainerStatus) {
	e := ended(st)
	switch {
	case st.State.Running != nil:
		t.running++
	case e != nil:
		t.stopped++
		if e.ExitCode == 0 {
			t.succeeded++
		}
		if !semantics.Restarts(pod, c, e.ExitCode) {
			t.final++
		}
	case st.State.Waiting != nil:
		t.waiting++
	default:
		t.unknown++
	}
}

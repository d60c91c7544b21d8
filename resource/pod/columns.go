package pod

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/resource"
	judge "github.com/sampan-dev/sampan/semantics/pod"
)

func columns() []resource.Column[corev1.Pod] {
	cell := resource.Cell[corev1.Pod]
	return []resource.Column[corev1.Pod]{
		resource.NameColumn[corev1.Pod](),
		{Name: "Ready", Description: "The aggregate readiness state of this pod for accepting traffic.",
			Cell: cell(func(p *corev1.Pod) any { v := look(p); return fmt.Sprintf("%d/%d", v.ready, v.total) })},
		{Name: "Status", Description: "The aggregate status of the containers in this pod.",
			Cell: cell(func(p *corev1.Pod) any { return look(p).reason })},
		{Name: "Restarts", Description: "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
			Cell: restartsCell},
		resource.AgeColumn[corev1.Pod](),
		{Name: "IP", Wide: true, Description: resource.Doc(corev1.PodStatus{}, "podIP"),
			Cell: cell(func(p *corev1.Pod) any { return orNone(p.Status.PodIP) })},
		{Name: "Node", Wide: true, Description: resource.Doc(corev1.PodSpec{}, "nodeName"),
			Cell: cell(func(p *corev1.Pod) any { return orNone(p.Spec.NodeName) })},
		{Name: "Nominated Node", Wide: true, Description: resource.Doc(corev1.PodStatus{}, "nominatedNodeName"),
			Cell: cell(func(p *corev1.Pod) any { return orNone(p.Status.NominatedNodeName) })},
		{Name: "Readiness Gates", Wide: true, Description: resource.Doc(corev1.PodSpec{}, "readinessGates"),
			Cell: cell(gatesCell)},
	}
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func restartsCell(p *corev1.Pod, now time.Time) any {
	v := look(p)
	if v.restarts != 0 && !v.last.IsZero() {
		return fmt.Sprintf("%d (%s ago)", v.restarts, resource.Since(v.last, now))
	}
	return strconv.Itoa(v.restarts)
}

func gatesCell(p *corev1.Pod) any {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	open := 0
	for _, g := range p.Spec.ReadinessGates {
		if c := judge.Condition(&p.Status, g.ConditionType); c != nil && c.Status == corev1.ConditionTrue {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// view is what one line tells of a pod's containers.
type view struct {
	ready, total, restarts int
	last                   metav1.Time // of restarts
	reason                 string
}

// nodeLost is the reason the node controller gives pods of a node gone silent.
const nodeLost = "NodeLost"

func look(p *corev1.Pod) view {
	v := view{total: len(p.Spec.Containers), reason: string(p.Status.Phase)}
	if p.Status.Reason != "" {
		v.reason = p.Status.Reason
	}
	if c := judge.Condition(&p.Status, corev1.PodScheduled); c != nil && c.Reason == corev1.PodReasonSchedulingGated {
		v.reason = corev1.PodReasonSchedulingGated
	}
	sidecars := view{}
	initializing := v.init(p, &sidecars)
	if c := judge.Condition(&p.Status, corev1.PodInitialized); !initializing || (c != nil && c.Status == corev1.ConditionTrue) {
		v.restarts, v.last = sidecars.restarts, sidecars.last
		v.main(p)
	}
	switch {
	case p.DeletionTimestamp != nil && p.Status.Reason == nodeLost:
		v.reason = "Unknown"
	case p.DeletionTimestamp != nil && !judge.Finished(p):
		v.reason = "Terminating"
	}
	return v
}

// restarted counts a container's restarts.
func (v *view) restarted(s *corev1.ContainerStatus) {
	v.restarts += int(s.RestartCount)
	if t := s.LastTerminationState.Terminated; t != nil && v.last.Before(&t.FinishedAt) {
		v.last = t.FinishedAt
	}
}

// init looks at init containers until one that is not done; it says whether
// there is one. Restarts of sidecars, which stay, are counted apart as well.
func (v *view) init(p *corev1.Pod, sidecars *view) (initializing bool) {
	stays := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; judge.Sidecar(c) {
			stays[c.Name] = true
			v.total++
		}
	}
	for i := range p.Status.InitContainerStatuses {
		s := &p.Status.InitContainerStatuses[i]
		v.restarted(s)
		if stays[s.Name] {
			sidecars.restarted(s)
		}
		waiting, ended := s.State.Waiting, s.State.Terminated
		switch {
		case ended != nil && ended.ExitCode == 0:
			continue
		case stays[s.Name] && s.Started != nil && *s.Started:
			if s.Ready {
				v.ready++
			}
			continue
		case ended != nil:
			v.reason = "Init:" + endReason(ended)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			v.reason = "Init:" + waiting.Reason
		default:
			v.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

func endReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func (v *view) main(p *corev1.Pod) {
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		s := &p.Status.ContainerStatuses[i]
		v.restarted(s)
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			v.reason = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			v.reason = endReason(s.State.Terminated)
		case s.Ready && s.State.Running != nil:
			running = true
			v.ready++
		}
	}
	// One container that ended does not make the pod complete.
	if v.reason == "Completed" && running {
		v.reason = "NotReady"
		if judge.Ready(p) {
			v.reason = "Running"
		}
	}
}

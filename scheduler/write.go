package scheduler

import (
	"context"
	"encoding/json"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// bind tells the server where the pod goes.
func (s *Scheduler) bind(ctx context.Context, t trip) {
	p, w, nodeName, began := t.pod, t.w, t.node, t.began
	if len(t.choices) > 0 {
		err := s.take(ctx, t.choices, nodeName)
		if err != nil {
			s.release(t.choices, t.grants)
			s.log.Warn("could not take volumes", "pod", podKey(p), "err", err)
			s.events.Event(p, corev1.EventTypeWarning, "FailedScheduling", "running PreBind plugin %q: %v", "VolumeBinding", err)
		}
		if err == nil {
			s.release(nil, t.grants) // devices are chosen when the volumes are there
		}
		s.unbind(w, causeVolume, err != nil)
		return
	}
	if err := s.reserve(ctx, p, t.grants); err != nil {
		s.log.Warn("could not reserve devices", "pod", podKey(p), "err", err)
		s.events.Event(p, corev1.EventTypeWarning, "FailedScheduling", "running PreBind plugin %q: %v", "DynamicResources", err)
		s.unbind(w, causeVolume, true)
		return
	}
	b := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}
	_, err := s.c.Create(ctx, client.Resource[corev1.Pod](), p.Namespace, p.Name, "binding", b, nil)
	if err == nil {
		s.locked(func() {
			if s.line.all[p.UID] == w {
				s.line.drop(p.UID)
			}
		})
		s.events.Event(p, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %v/%v to %v", p.Namespace, p.Name, nodeName)
		s.metrics.tried("scheduled", clock.Since(began))
		if s.metrics != nil {
			s.metrics.sli.WithLabelValues(strconv.Itoa(min(t.attempts, 16))).Observe(clock.Since(t.since).Seconds())
		}
		return
	}
	s.unreserve(ctx, p, t.grants)
	s.unbind(w, causeNode, true)
	if apierrors.IsNotFound(err) || ctx.Err() != nil {
		return // the pod is gone
	}
	s.failBind(ctx, p, err)
	s.metrics.tried("error", clock.Since(began))
}

func (s *Scheduler) failBind(ctx context.Context, p *corev1.Pod, err error) {
	s.log.Warn("could not bind", "pod", podKey(p), "err", err)
	s.events.Event(p, corev1.EventTypeWarning, "FailedScheduling", "running Bind plugin %q: %v", "DefaultBinder", err)
}

// unbind gives the room back that was assumed for w.
func (s *Scheduler) unbind(w *waiting, why cause, again bool) {
	s.locked(func() {
		if at, ok := s.cluster.pods[w.pod.UID]; ok && at.info == w.info && at.info.pod.Spec.NodeName == "" {
			s.cluster.dropPod(w.pod.UID)
		}
		s.line.failed(w, why, again, clock.Now())
		s.line.changed(causeRoom|causePods, clock.Now())
	})
}

// tellFailure writes why the pod has no node, and makes room for it if v says so.
func (s *Scheduler) tellFailure(ctx context.Context, p *corev1.Pod, message string, e *eviction) {
	if now, ok := s.v.pods.Get(p.Namespace, p.Name); !ok || now.UID != p.UID {
		return
	}
	s.events.Event(p, corev1.EventTypeWarning, "FailedScheduling", "%s", message)
	nominated := p.Status.NominatedNodeName
	if e != nil {
		nominated = e.node
	}
	if err := s.patchStatus(ctx, p, message, nominated); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("could not report", "pod", podKey(p), "err", err)
	}
	if e != nil {
		s.evict(ctx, p, e)
	}
}

func (s *Scheduler) patchStatus(ctx context.Context, p *corev1.Pod, message, nominated string) error {
	next := p.Status.DeepCopy()
	c := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message, ObservedGeneration: p.Generation}
	changed := pod.SetCondition(next, c, clock.Now())
	if !changed && nominated == p.Status.NominatedNodeName {
		return nil
	}
	status := map[string]any{"conditions": []corev1.PodCondition{*pod.Condition(next, corev1.PodScheduled)}}
	if nominated != p.Status.NominatedNodeName {
		status["nominatedNodeName"] = nominated
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = client.Of[corev1.Pod](s.c, p.Namespace).Patch(ctx, p.Name, "status", types.StrategicMergePatchType, data)
	return err
}

// evict deletes the pods that must make room for p.
func (s *Scheduler) evict(ctx context.Context, p *corev1.Pod, e *eviction) {
	failed := false
	for _, o := range e.pods {
		pods := client.Of[corev1.Pod](s.c, o.Namespace)
		now := metav1.NewTime(clock.Now())
		c := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message: preemptionMessage(p.Spec.SchedulerName), LastTransitionTime: now, ObservedGeneration: o.Generation}
		data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{c}}})
		if err == nil {
			_, err = pods.Patch(ctx, o.Name, "status", types.StrategicMergePatchType, data)
		}
		if err == nil {
			err = pods.Delete(ctx, o.Name, &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.UID))})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("could not preempt", "pod", podKey(o), "err", err)
			failed = true
			continue
		}
		s.events.Event(o, corev1.EventTypeNormal, "Preempted", "Preempted by pod %v on node %v", p.UID, e.node)
	}
	if failed {
		// Others may have to be asked.
		s.locked(func() {
			if nom := s.nominated[podKey(p)]; nom != nil {
				nom.victims = nil
			}
		})
	}
}

package podgc

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/semantics/pod"
)

// Upstream's figures.
const (
	period     = 20 * time.Second
	quarantine = 40 * time.Second // a node is missing for so long before its pods are orphans
)

type loop struct {
	*controller.Loop
	threshold int
	nodes     *client.Mirror[corev1.Node]
	pods      *client.Mirror[corev1.Pod]
	missing   map[string]time.Time // nodes, since when; only the periodic task's
}

// New returns the podgc loop; threshold is how many finished pods may be there,
// 0 for any number.
func New(d controller.Deps, threshold int) controller.Controller {
	l := &loop{threshold: threshold, missing: map[string]time.Time{}}
	l.Loop = controller.NewLoop(d, "pod-garbage-collector", 1, nil).As(d, "pod-garbage-collector")
	l.nodes = controller.Input[corev1.Node](l.Loop, nil)
	l.pods = controller.Input[corev1.Pod](l.Loop, nil)
	l.Every(period, l.sweep)
	return l
}

// surplus returns the oldest finished pods beyond threshold.
func surplus(pods []*corev1.Pod, threshold int) []*corev1.Pod {
	done := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !pod.Finished(p) || p.DeletionTimestamp != nil })
	if threshold <= 0 || len(done) <= threshold {
		return nil
	}
	slices.SortFunc(done, func(a, b *corev1.Pod) int {
		// Evicted pods first: they tell the least.
		if c := cmp.Compare(rank(a), rank(b)); c != 0 {
			return c
		}
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return done[:len(done)-threshold]
}

func rank(p *corev1.Pod) int {
	if p.Status.Reason == "Evicted" {
		return 0
	}
	return 1
}

// unscheduled returns pods that were deleted before they had a node.
func unscheduled(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil || p.Spec.NodeName != "" })
}

// stranded returns deleted pods of nodes that are not ready and out of service.
func stranded(pods []*corev1.Pod, node func(name string) *corev1.Node) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		n := node(p.Spec.NodeName)
		if p.DeletionTimestamp == nil || n == nil {
			return true
		}
		ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		out := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
		return ready || !out
	})
}

func (l *loop) sweep(ctx context.Context) {
	pods := l.pods.List("")
	l.remove(ctx, surplus(pods, l.threshold), nil)
	l.remove(ctx, stranded(pods, func(name string) *corev1.Node { n, _ := l.nodes.Get("", name); return n }),
		&corev1.PodCondition{Reason: "DeletionByPodGC", Message: "PodGC: node is out of service"})
	l.remove(ctx, unscheduled(pods), nil)
	l.remove(ctx, l.orphans(ctx, pods), &corev1.PodCondition{Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists"})
}

// orphans returns the pods of nodes that are gone for good.
func (l *loop) orphans(ctx context.Context, pods []*corev1.Pod) []*corev1.Pod {
	names := map[string]bool{}
	for _, p := range pods {
		if _, ok := l.nodes.Get("", p.Spec.NodeName); !ok && p.Spec.NodeName != "" {
			names[p.Spec.NodeName] = true
		}
	}
	for name := range l.missing {
		if !names[name] {
			delete(l.missing, name)
		}
	}
	for name := range names {
		since, known := l.missing[name]
		if !known {
			l.missing[name] = clock.Now()
		}
		if !known || clock.Since(since) < quarantine {
			delete(names, name)
		} else if _, err := client.Of[corev1.Node](l.Client, "").Get(ctx, name); !apierrors.IsNotFound(err) {
			delete(names, name)
		}
	}
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !names[p.Spec.NodeName] })
}

// remove deletes pods at once; why, when there is a reason to tell, is told in
// the status of those that had not finished.
func (l *loop) remove(ctx context.Context, pods []*corev1.Pod, why *corev1.PodCondition) {
	_, err := controller.All(ctx, len(pods), func(ctx context.Context, i int) error {
		p := pods[i]
		if err := l.one(ctx, p, why); controller.Ignore(err, apierrors.IsNotFound) != nil {
			return fmt.Errorf("pod %s: %w", client.KeyOf(p), err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		l.Log.Warn("could not remove pods; trying again", "err", err)
	}
}

func (l *loop) one(ctx context.Context, p *corev1.Pod, why *corev1.PodCondition) error {
	objects := client.Of[corev1.Pod](l.Client, p.Namespace)
	if !pod.Finished(p) {
		c := p.DeepCopy()
		c.Status.Phase = corev1.PodFailed
		if why != nil {
			pod.SetCondition(&c.Status, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: why.Reason, Message: why.Message, ObservedGeneration: p.Generation}, clock.Now())
		}
		patch, err := json.Marshal(map[string]any{ // the role of this controller may patch, not update
			"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"phase": c.Status.Phase, "conditions": c.Status.Conditions},
		})
		if err != nil {
			return err
		}
		if _, err := objects.Patch(ctx, p.Name, "status", types.StrategicMergePatchType, patch); err != nil {
			return err
		}
	}
	now := int64(0)
	return objects.Delete(ctx, p.Name, &metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
}

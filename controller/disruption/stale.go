package disruption

import (
	"context"
	"encoding/json"
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

// ofPods begins the keys of pods; no budget's name has a colon.
const ofPods = "pod:"

// staleAfter is how long a pod that was to be disrupted may live on before that
// is no longer believed.
const staleAfter = 2 * time.Minute

// doomed returns when a pod was last said to be disrupted soon.
func doomed(p *corev1.Pod) (at time.Time, ok bool) {
	c := pod.Condition(&p.Status, corev1.DisruptionTarget)
	if p.DeletionTimestamp != nil || pod.Finished(p) || c == nil || c.Status != corev1.ConditionTrue {
		return time.Time{}, false
	}
	return c.LastTransitionTime.Time, true
}

func doomedKey(p *corev1.Pod) []controller.Key {
	if p == nil {
		return nil
	}
	if _, ok := doomed(p); !ok {
		return nil
	}
	return []controller.Key{{Namespace: p.Namespace, Name: ofPods + p.Name}}
}

// spared takes the word back about a pod that nobody disrupted after all.
func (l *loop) spared(ctx context.Context, k controller.Key, name string) error {
	p, ok := l.pods.Get(k.Namespace, name)
	if !ok {
		return nil
	}
	at, ok := doomed(p)
	if !ok {
		return nil
	}
	now := clock.Now()
	if left := at.Add(staleAfter).Sub(now); left > 0 {
		l.After(k, left)
		return nil
	}
	c := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now), ObservedGeneration: p.Generation}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{c}}})
	if err != nil {
		return err
	}
	_, err = client.Of[corev1.Pod](l.Client, k.Namespace).Patch(ctx, name, "status", types.StrategicMergePatchType, patch)
	return controller.Ignore(err, apierrors.IsNotFound)
}

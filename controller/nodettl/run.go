// Package nodettl tells kubelets how long they may keep what they read.
//
// Job: the annotation node.alpha.kubernetes.io/ttl of every node, longer the
// more nodes there are.
//
// Not its job: what kubelets do with it.
//
// Invariants: near a boundary the value does not swing, for a step down needs
// fewer nodes than the step up.
package nodettl

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// steps are upstream's: the sizes of clusters, which overlap, and their seconds.
var steps = []struct{ least, most, seconds int }{
	{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, math.MaxInt, 300},
}

// step is where a cluster of so many nodes stands that stood at was.
func step(was, nodes int) int {
	for nodes > steps[was].most {
		was++
	}
	for nodes < steps[was].least {
		was--
	}
	return was
}

type loop struct {
	*controller.Loop
	nodes *client.Mirror[corev1.Node]
	mu    sync.Mutex
	at    int
}

// New returns the nodettl loop.
func New(d controller.Deps) controller.Controller {
	l := &loop{}
	l.Loop = controller.NewLoop(d, "ttl", 5, l.reconcile)
	l.nodes = controller.Input(l.Loop, l.ofNode)
	return l
}

func (l *loop) ofNode(old, new *corev1.Node) []controller.Key {
	l.mu.Lock()
	was := l.at
	l.at = step(was, l.nodes.Len())
	moved := l.at != was
	l.mu.Unlock()
	switch {
	case moved:
		var keys []controller.Key
		for _, n := range l.nodes.List("") {
			keys = append(keys, client.KeyOf(n))
		}
		return keys
	case new == nil, old != nil && old.Annotations[corev1.ObjectTTLAnnotationKey] == new.Annotations[corev1.ObjectTTLAnnotationKey]:
		return nil
	}
	return []controller.Key{client.KeyOf(new)}
}

func (l *loop) reconcile(ctx context.Context, k controller.Key) error {
	l.mu.Lock()
	want := strconv.Itoa(steps[l.at].seconds)
	l.mu.Unlock()
	n, ok := l.nodes.Get("", k.Name)
	if !ok || n.Annotations[corev1.ObjectTTLAnnotationKey] == want {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{corev1.ObjectTTLAnnotationKey: want}}})
	if err != nil {
		return err
	}
	_, err = client.Of[corev1.Node](l.Client, "").Patch(ctx, k.Name, "", types.StrategicMergePatchType, patch)
	return controller.Ignore(err, apierrors.IsNotFound)
}

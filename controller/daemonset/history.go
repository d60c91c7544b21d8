package daemonset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// history returns the set's templates, past and present.
func (l *loop) history(ds *appsv1.DaemonSet) *controller.History {
	return &controller.History{Owner: ds, Kind: kind, Template: &ds.Spec.Template, Collisions: ds.Status.CollisionCount, Limit: ds.Spec.RevisionHistoryLimit,
		Client: l.Client, Revisions: l.revisions, Unseen: &l.Unseen}
}

// collided counts a revision's name taken by another template, so that the
// next try has another name.
func (l *loop) collided(ctx context.Context, ds *appsv1.DaemonSet) error {
	c := ds.DeepCopy()
	n := int32(1)
	if c.Status.CollisionCount != nil {
		n += *c.Status.CollisionCount
	}
	c.Status.CollisionCount = &n
	_, err := client.Of[appsv1.DaemonSet](l.Client, ds.Namespace).UpdateStatus(ctx, c)
	return err
}

// inUse names the revisions that pods are of.
func inUse(pods []*corev1.Pod) map[string]bool {
	used := map[string]bool{}
	for _, p := range pods {
		used[p.Labels[controller.RevisionLabel]] = true
	}
	return used
}

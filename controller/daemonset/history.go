package daemonset

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/controller"
)

// snapshot is a template as a ControllerRevision keeps it: the patch that
// brings a set back to it.
func snapshot(ds *appsv1.DaemonSet) ([]byte, error) {
	data, err := json.Marshal(&ds.Spec.Template)
	if err != nil {
		return nil, err
	}
	var t map[string]any
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, err
	}
	t["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": t}})
}

// hashOf names a snapshot; collisions tells apart those that hash alike.
func hashOf(data []byte, collisions *int32) string {
	h := fnv.New32a()
	h.Write(data)
	if collisions != nil {
		h.Write([]byte(strconv.Itoa(int(*collisions))))
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// current returns the revision of the template as it is, made if need be, and
// all others, the oldest first.
func (l *loop) current(ctx context.Context, ds *appsv1.DaemonSet) (*appsv1.ControllerRevision, []*appsv1.ControllerRevision, error) {
	data, err := snapshot(ds)
	if err != nil {
		return nil, nil, err
	}
	all := l.revisions.By(controller.ByOwner, string(ds.UID))
	slices.SortFunc(all, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name))
	})
	next := int64(1)
	if len(all) > 0 {
		next = all[len(all)-1].Revision + 1
	}
	objects := client.Of[appsv1.ControllerRevision](l.Client, ds.Namespace)
	at := slices.IndexFunc(all, func(r *appsv1.ControllerRevision) bool { return sameData(r.Data.Raw, data) })
	if at >= 0 {
		now := all[at]
		others := slices.Delete(slices.Clone(all), at, at+1)
		if at == len(all)-1 {
			return now, others, nil
		}
		c := now.DeepCopy() // rolled back to: it is the newest again
		c.Revision = next
		now, err = objects.Update(ctx, c)
		if err == nil {
			controller.Wrote(&l.Unseen, client.KeyOf(ds), l.revisions, now)
		}
		return now, others, err
	}
	hash := hashOf(data, ds.Status.CollisionCount)
	made, err := objects.Create(ctx, &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Name: ds.Name + "-" + hash, Namespace: ds.Namespace, Annotations: ds.Annotations,
			Labels:          withHash(ds.Spec.Template.Labels, hash),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, kind)}},
		Data: runtime.RawExtension{Raw: data}, Revision: next,
	})
	if apierrors.IsAlreadyExists(err) {
		return nil, nil, l.collided(ctx, ds, err)
	}
	if err == nil {
		controller.Wrote(&l.Unseen, client.KeyOf(ds), l.revisions, made)
	}
	return made, all, err
}

// collided counts a name taken by another template, so that the next try has another name.
func (l *loop) collided(ctx context.Context, ds *appsv1.DaemonSet, cause error) error {
	c := ds.DeepCopy()
	n := int32(1)
	if c.Status.CollisionCount != nil {
		n += *c.Status.CollisionCount
	}
	c.Status.CollisionCount = &n
	if _, err := client.Of[appsv1.DaemonSet](l.Client, ds.Namespace).UpdateStatus(ctx, c); err != nil {
		return err
	}
	return cause
}

func sameData(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	ca, errA := json.Marshal(x)
	cb, errB := json.Marshal(y)
	return errA == nil && errB == nil && bytes.Equal(ca, cb)
}

func withHash(labels map[string]string, hash string) map[string]string {
	out := map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: hash}
	for k, v := range labels {
		if k != appsv1.DefaultDaemonSetUniqueLabelKey {
			out[k] = v
		}
	}
	return out
}

// surplus returns the old revisions to forget: beyond the limit, and no pod's.
func surplus(ds *appsv1.DaemonSet, old []*appsv1.ControllerRevision, pods []*corev1.Pod) []*appsv1.ControllerRevision {
	limit := 10
	if ds.Spec.RevisionHistoryLimit != nil {
		limit = int(*ds.Spec.RevisionHistoryLimit)
	}
	used := map[string]bool{}
	for _, p := range pods {
		used[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	var out []*appsv1.ControllerRevision
	for _, r := range old {
		if len(old)-len(out) <= limit {
			break
		}
		if !used[r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] {
			out = append(out, r)
		}
	}
	return out
}

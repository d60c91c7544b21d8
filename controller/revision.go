package controller

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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// RevisionLabel names a pod's template among its owner's ControllerRevisions.
const RevisionLabel = appsv1.ControllerRevisionHashLabelKey

// History keeps the templates of one owner as ControllerRevisions.
type History struct {
	Owner      api.Object
	Kind       schema.GroupVersionKind
	Template   *corev1.PodTemplateSpec
	Collisions *int32 // tells apart templates that hash alike
	Limit      *int32 // old revisions kept; nil is 10
	Label      string // of revisions, with their hash; "" is RevisionLabel

	Client    client.Interface
	Revisions *client.Mirror[appsv1.ControllerRevision] // with IndexByOwner
	Unseen    *Unseen
}

// snapshot is a template as a revision keeps it: the patch that brings the
// owner back to it.
func snapshot(t *corev1.PodTemplateSpec) ([]byte, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	m["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": m}})
}

// TemplateOf returns the template that a revision keeps.
func TemplateOf(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var into struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &into); err != nil {
		return nil, fmt.Errorf("revision %s: %w", r.Name, err)
	}
	return &into.Spec.Template, nil
}

func (h *History) hash(data []byte) string {
	sum := fnv.New32a()
	sum.Write(data)
	if h.Collisions != nil {
		sum.Write([]byte(strconv.Itoa(int(*h.Collisions))))
	}
	return rand.SafeEncodeString(fmt.Sprint(sum.Sum32()))
}

// Current returns the revision of the template as it is, made if need be, and
// all others, the oldest first. An AlreadyExists error means that another
// template has the name: count a collision and come again.
func (h *History) Current(ctx context.Context) (*appsv1.ControllerRevision, []*appsv1.ControllerRevision, error) {
	data, err := snapshot(h.Template)
	if err != nil {
		return nil, nil, err
	}
	all := h.Revisions.By(ByOwner, string(h.Owner.GetUID()))
	slices.SortFunc(all, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name))
	})
	next := int64(1)
	if len(all) > 0 {
		next = all[len(all)-1].Revision + 1
	}
	objects := client.Of[appsv1.ControllerRevision](h.Client, h.Owner.GetNamespace())
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
		h.wrote(now, err)
		return now, others, err
	}
	hash := h.hash(data)
	name := h.Label
	if name == "" {
		name = RevisionLabel
	}
	made, err := objects.Create(ctx, &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Name: h.Owner.GetName() + "-" + hash, Namespace: h.Owner.GetNamespace(), Annotations: h.Owner.GetAnnotations(),
			Labels: labelled(h.Template.Labels, name, hash), OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(h.Owner, h.Kind)}},
		Data: runtime.RawExtension{Raw: data}, Revision: next,
	})
	h.wrote(made, err)
	return made, all, err
}

func (h *History) key() Key { return Key{Namespace: h.Owner.GetNamespace(), Name: h.Owner.GetName()} }

func (h *History) wrote(r *appsv1.ControllerRevision, err error) {
	if err == nil {
		Wrote(h.Unseen, h.key(), h.Revisions, r)
	}
}

// Forget deletes those of others, the oldest first, that are beyond the limit
// and whose names are not in use.
func (h *History) Forget(ctx context.Context, others []*appsv1.ControllerRevision, used map[string]bool) error {
	limit := 10
	if h.Limit != nil {
		limit = int(*h.Limit)
	}
	left := len(others)
	for _, r := range others {
		if left <= limit {
			return nil
		}
		if used[r.Labels[RevisionLabel]] || used[r.Name] {
			continue
		}
		err := client.Of[appsv1.ControllerRevision](h.Client, h.Owner.GetNamespace()).Delete(ctx, r.Name, nil)
		if Ignore(err, apierrors.IsNotFound) != nil {
			return err
		}
		Removed(h.Unseen, h.key(), h.Revisions, r)
		left--
	}
	return nil
}

func sameData(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, errP := json.Marshal(x)
	q, errQ := json.Marshal(y)
	return errP == nil && errQ == nil && bytes.Equal(p, q)
}

// WithRevision returns labels with the revision's name among them.
func WithRevision(labels map[string]string, hash string) map[string]string {
	return labelled(labels, RevisionLabel, hash)
}

func labelled(labels map[string]string, key, value string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		out[k] = v
	}
	out[key] = value
	return out
}

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/client"
)

// ByOwner is the index of dependents under their controller's UID; objects
// without one are under Orphans(namespace).
const ByOwner = "controller"

// Orphans is ByOwner's value for objects of a namespace that have no controller.
func Orphans(namespace string) string { return "orphans/" + namespace }

// IndexByOwner adds ByOwner to m.
func IndexByOwner[T any](m *client.Mirror[T]) {
	m.Index(ByOwner, func(o *T) []string {
		obj := any(o).(api.Object)
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			return []string{string(ref.UID)}
		}
		return []string{Orphans(obj.GetNamespace())}
	})
}

// OwnerKeys returns the key of o's controller if it is of the kind.
func OwnerKeys(o metav1.Object, kind schema.GroupVersionKind) []Key {
	ref := metav1.GetControllerOfNoCopy(o)
	if ref == nil || ref.Kind != kind.Kind {
		return nil
	}
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err != nil || gv.Group != kind.Group {
		return nil
	}
	return []Key{{Namespace: o.GetNamespace(), Name: ref.Name}}
}

// Family is a kind of owners that adopt dependents by their labels.
type Family[O any] struct {
	Kind     schema.GroupVersionKind
	Owners   *client.Mirror[O]
	Selector func(*O) *metav1.LabelSelector
}

// Concerned finds the owners that a dependent's change concerns: its controllers
// before and after, or, when nobody controls it, those that may adopt it.
func Concerned[D, O any](f Family[O], old, new *D) []Key {
	var keys []Key
	if old != nil {
		keys = OwnerKeys(any(old).(metav1.Object), f.Kind)
	}
	if new == nil {
		return keys
	}
	obj := any(new).(metav1.Object)
	if now := OwnerKeys(obj, f.Kind); len(now) > 0 {
		if len(keys) > 0 && keys[0] == now[0] {
			return now
		}
		return append(keys, now...)
	}
	if metav1.GetControllerOfNoCopy(obj) != nil || obj.GetDeletionTimestamp() != nil {
		return keys
	}
	if old != nil && len(keys) == 0 && maps.Equal(any(old).(metav1.Object).GetLabels(), obj.GetLabels()) && metav1.GetControllerOfNoCopy(any(old).(metav1.Object)) == nil {
		return nil // nobody wanted it before
	}
	for _, o := range f.Owners.List(obj.GetNamespace()) {
		if sel, err := metav1.LabelSelectorAsSelector(f.Selector(o)); err == nil && !sel.Empty() && sel.Matches(labels.Set(obj.GetLabels())) {
			keys = append(keys, client.KeyOf(o))
		}
	}
	return keys
}

// Claim decides which objects a controller object owns: it keeps its own that
// its selector still chooses, releases its own that it does not, and adopts
// chosen ones that nobody controls.
type Claim[T any] struct {
	Owner    api.Object
	Kind     schema.GroupVersionKind
	Selector labels.Selector
	Objects  client.Typed[T]
	// Fresh reads the owner from the server, before the first adoption.
	Fresh func(ctx context.Context) (metav1.Object, error)
	// Match narrows what may be adopted; may be nil.
	Match func(*T) bool
	// Adopted is told of each object adopted or released; may be nil.
	Adopted func(*T)

	checked  bool
	checkErr error
}

// Sort returns the objects owned after adoption and release.
func (c *Claim[T]) Sort(ctx context.Context, objs []*T) ([]*T, error) {
	var mine []*T
	var errs []error
	for _, o := range objs {
		kept, err := c.one(ctx, o)
		if err != nil {
			errs = append(errs, err)
		} else if kept != nil {
			mine = append(mine, kept)
		}
	}
	return mine, errors.Join(errs...)
}

func (c *Claim[T]) one(ctx context.Context, o *T) (*T, error) {
	obj := any(o).(api.Object)
	chosen := c.Selector.Matches(labels.Set(obj.GetLabels())) && (c.Match == nil || c.Match(o))
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		if ref.UID != c.Owner.GetUID() {
			return nil, nil
		}
		if chosen {
			return o, nil
		}
		if c.Owner.GetDeletionTimestamp() != nil {
			return nil, nil
		}
		return nil, c.release(ctx, obj)
	}
	if c.Owner.GetDeletionTimestamp() != nil || !chosen || obj.GetDeletionTimestamp() != nil {
		return nil, nil
	}
	adopted, err := c.adopt(ctx, obj)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return adopted, err
}

func (c *Claim[T]) adopt(ctx context.Context, o api.Object) (*T, error) {
	if !c.checked {
		c.checked = true
		fresh, err := c.Fresh(ctx)
		switch {
		case err != nil:
			c.checkErr = fmt.Errorf("adopt: %w", err)
		case fresh.GetUID() != c.Owner.GetUID():
			c.checkErr = fmt.Errorf("original %s %s/%s is gone: got uid %s, wanted %s", c.Kind.Kind, c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetUID(), c.Owner.GetUID())
		case fresh.GetDeletionTimestamp() != nil:
			c.checkErr = fmt.Errorf("%s/%s has just been deleted at %s", c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetDeletionTimestamp())
		}
	}
	if c.checkErr != nil {
		return nil, c.checkErr
	}
	return c.patch(ctx, o, metav1.NewControllerRef(c.Owner, c.Kind))
}

func (c *Claim[T]) release(ctx context.Context, o api.Object) error {
	_, err := c.patch(ctx, o, map[string]any{"$patch": "delete", "uid": c.Owner.GetUID()})
	// Gone, or changed under us: whoever changed it brings it back to us.
	return Ignore(err, apierrors.IsNotFound, apierrors.IsInvalid)
}

func (c *Claim[T]) patch(ctx context.Context, o api.Object, ref any) (*T, error) {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.GetUID(), "ownerReferences": []any{ref}}})
	if err != nil {
		return nil, err
	}
	out, err := c.Objects.Patch(ctx, o.GetName(), "", types.StrategicMergePatchType, data)
	if err == nil && c.Adopted != nil {
		c.Adopted(out)
	}
	return out, err
}

// PodFor makes a pod of the template for owner, without a name of its own.
func PodFor(template *corev1.PodTemplateSpec, owner api.Object, kind schema.GroupVersionKind) *corev1.Pod {
	t := template.DeepCopy()
	prefix := owner.GetName() + "-"
	if len(apivalidation.NameIsDNSSubdomain(prefix, true)) > 0 {
		prefix = owner.GetName()
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: prefix, Namespace: owner.GetNamespace(), Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
		},
		Spec: t.Spec,
	}
}

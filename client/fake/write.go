package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
)

func resourceOf(gvk schema.GroupVersionKind) schema.GroupVersionResource {
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	return plural
}

// Create implements client.Interface.
func (s *Server) Create(_ context.Context, r schema.GroupVersionResource, namespace, name, sub string, obj api.Object, _ *metav1.CreateOptions) (api.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := obj.DeepCopyObject().(api.Object)
	if sub == "" && o.GetName() == "" && o.GetGenerateName() != "" {
		s.names++
		o.SetName(fmt.Sprintf("%s%05d", o.GetGenerateName(), s.names))
	}
	if sub == "" {
		name = o.GetName()
		if o.GetNamespace() == "" && r.Resource != "namespaces" {
			o.SetNamespace(namespace)
		}
	}
	if err := s.note(Call{Verb: "create", Resource: r, Sub: sub, Key: types.NamespacedName{Namespace: namespace, Name: name}, Object: o}); err != nil {
		return nil, err
	}
	switch sub {
	case "":
	case "binding":
		return s.bind(r, namespace, name, o.(*corev1.Binding))
	case "eviction":
		return nil, s.delete(r, namespace, name, nil)
	default:
		return nil, apierrors.NewNotFound(r.GroupResource(), name+"/"+sub)
	}
	if name == "" {
		return nil, apierrors.NewBadRequest("name or generateName is required")
	}
	if s.objects[r][key(o)] != nil {
		return nil, apierrors.NewAlreadyExists(r.GroupResource(), name)
	}
	o.SetUID("")
	s.identify(o)
	return s.store(r, o), nil
}

// Update implements client.Interface.
func (s *Server) Update(_ context.Context, r schema.GroupVersionResource, namespace, sub string, obj api.Object, _ *metav1.UpdateOptions) (api.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Resource == "namespaces" {
		namespace = ""
	}
	if err := s.note(Call{Verb: "update", Resource: r, Sub: sub, Key: types.NamespacedName{Namespace: namespace, Name: obj.GetName()}, Object: obj}); err != nil {
		return nil, err
	}
	return s.update(r, namespace, sub, obj)
}

func (s *Server) update(r schema.GroupVersionResource, namespace, sub string, obj api.Object) (api.Object, error) {
	old, err := s.find(r, namespace, obj.GetName())
	if err != nil {
		return nil, err
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(r.GroupResource(), obj.GetName(), fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	next := obj.DeepCopyObject().(api.Object)
	if sub == "status" {
		copyField(next, old.DeepCopyObject(), "Spec")
		next.SetLabels(old.GetLabels())
	} else if sub == "" {
		copyField(next, old, "Status")
	}
	next.SetUID(old.GetUID())
	next.SetCreationTimestamp(old.GetCreationTimestamp())
	next.SetDeletionTimestamp(old.GetDeletionTimestamp())
	next.SetGeneration(old.GetGeneration())
	if specChanged(old, next) {
		next.SetGeneration(old.GetGeneration() + 1)
	}
	next.SetResourceVersion(old.GetResourceVersion())
	api.SetKind(next, old.GetObjectKind().GroupVersionKind())
	if reflect.DeepEqual(old, next) {
		return old, nil
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 && !held(next) {
		s.drop(r, next)
		return next, nil
	}
	return s.store(r, next), nil
}

func held(o api.Object) bool {
	switch o := o.(type) {
	case *corev1.Namespace:
		return len(o.Spec.Finalizers) > 0
	case *corev1.Pod:
		return o.DeletionGracePeriodSeconds != nil && *o.DeletionGracePeriodSeconds > 0
	}
	return false
}

func copyField(dst, src runtime.Object, name string) {
	d := reflect.ValueOf(dst).Elem().FieldByName(name)
	s := reflect.ValueOf(src).Elem().FieldByName(name)
	if d.IsValid() && s.IsValid() && d.Type() == s.Type() {
		d.Set(s)
	}
}

func specChanged(a, b api.Object) bool {
	x := reflect.ValueOf(a).Elem().FieldByName("Spec")
	y := reflect.ValueOf(b).Elem().FieldByName("Spec")
	return x.IsValid() && y.IsValid() && !reflect.DeepEqual(x.Interface(), y.Interface())
}

// Patch implements client.Interface for merge and strategic merge patches.
func (s *Server) Patch(_ context.Context, r schema.GroupVersionResource, namespace, name, sub string, t types.PatchType, data []byte, _ *metav1.PatchOptions) (api.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.find(r, namespace, name)
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	switch t {
	case types.StrategicMergePatchType:
		doc, err = strategicpatch.StrategicMergePatch(doc, data, old)
	case types.MergePatchType:
		doc, err = mergePatch(doc, data)
	default:
		err = fmt.Errorf("patch type %s is not supported", t)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	next := reflect.New(reflect.TypeOf(old).Elem()).Interface().(api.Object)
	if err := json.Unmarshal(doc, next); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if u := next.GetUID(); u != old.GetUID() {
		return nil, apierrors.NewConflict(r.GroupResource(), name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", u, old.GetUID()))
	}
	if err := s.note(Call{Verb: "patch", Resource: r, Sub: sub, Key: types.NamespacedName{Namespace: namespace, Name: name}, Object: next}); err != nil {
		return nil, err
	}
	return s.update(r, namespace, sub, next)
}

func mergePatch(doc, patch []byte) ([]byte, error) {
	var d, p any
	if err := json.Unmarshal(doc, &d); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(patch, &p); err != nil {
		return nil, err
	}
	return json.Marshal(merged(d, p))
}

func merged(d, p any) any {
	pm, ok := p.(map[string]any)
	if !ok {
		return p
	}
	dm, ok := d.(map[string]any)
	if !ok {
		dm = map[string]any{}
	}
	for k, v := range pm {
		if v == nil {
			delete(dm, k)
		} else {
			dm[k] = merged(dm[k], v)
		}
	}
	return dm
}

// Delete implements client.Interface.
func (s *Server) Delete(_ context.Context, r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.note(Call{Verb: "delete", Resource: r, Key: types.NamespacedName{Namespace: namespace, Name: name}, Delete: o}); err != nil {
		return err
	}
	return s.delete(r, namespace, name, o)
}

func (s *Server) delete(r schema.GroupVersionResource, namespace, name string, o *metav1.DeleteOptions) error {
	old, err := s.find(r, namespace, name)
	if err != nil {
		return err
	}
	if o != nil && o.Preconditions != nil {
		p := o.Preconditions
		if p.UID != nil && *p.UID != old.GetUID() {
			return apierrors.NewConflict(r.GroupResource(), name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, old.GetUID()))
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion() {
			return apierrors.NewConflict(r.GroupResource(), name, fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *p.ResourceVersion, old.GetResourceVersion()))
		}
	}
	next := old.DeepCopyObject().(api.Object)
	if o != nil && o.PropagationPolicy != nil {
		f := slices.DeleteFunc(next.GetFinalizers(), func(f string) bool {
			return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
		})
		switch *o.PropagationPolicy {
		case metav1.DeletePropagationForeground:
			f = append(f, metav1.FinalizerDeleteDependents)
		case metav1.DeletePropagationOrphan:
			f = append(f, metav1.FinalizerOrphanDependents)
		}
		next.SetFinalizers(f)
	}
	if len(next.GetFinalizers()) > 0 || held(next) && (o == nil || o.GracePeriodSeconds == nil || *o.GracePeriodSeconds != 0) {
		if next.GetDeletionTimestamp() == nil {
			now := metav1.NewTime(clock.Now())
			next.SetDeletionTimestamp(&now)
			if ns, ok := next.(*corev1.Namespace); ok {
				ns.Status.Phase = corev1.NamespaceTerminating
			}
			s.store(r, next)
		}
		return nil
	}
	s.drop(r, old)
	return nil
}

// matcher returns the predicate of a list's or watch's selectors.
func matcher(namespace string, o *metav1.ListOptions) (func(api.Object) bool, error) {
	ls, fs := labels.Everything(), fields.Everything()
	var err error
	if o != nil {
		if ls, err = labels.Parse(o.LabelSelector); err != nil {
			return nil, err
		}
		if fs, err = fields.ParseSelector(o.FieldSelector); err != nil {
			return nil, err
		}
	}
	return func(obj api.Object) bool {
		if namespace != "" && obj.GetNamespace() != namespace || !ls.Matches(labels.Set(obj.GetLabels())) {
			return false
		}
		return fs.Empty() || fs.Matches(fieldSet{obj})
	}, nil
}

// fieldSet looks fields up by their JSON path.
type fieldSet struct{ obj api.Object }

func (f fieldSet) Has(field string) bool { return true }

func (f fieldSet) Get(field string) string {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(f.obj)
	if err != nil {
		return ""
	}
	var v any = m
	for part := range strings.SplitSeq(field, ".") {
		next, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = next[part]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

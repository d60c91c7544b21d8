package apply

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/resource"
)

// remembered bounds how many shapes of new objects are known.
const remembered = 512

// first is what the first claim of an object says. It is shared by all objects of
// one shape: whoever changes claims writes new ones.
type first struct {
	fields *metav1.FieldsV1
	tree   map[string]any
}

// memory knows which fields somebody owns who creates an object. Controllers
// create the same object over and over under different names, and working it
// out costs more than all else in a create.
type memory struct {
	mu         sync.Mutex
	now, older map[[sha256.Size]byte]*first
}

func (m *memory) get(sum [sha256.Size]byte) *first {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.now[sum]; f != nil {
		return f
	}
	f := m.older[sum]
	if f != nil {
		m.keep(sum, f)
	}
	return f
}

func (m *memory) put(sum [sha256.Size]byte, f *first) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(sum, f)
}

// keep remembers in two generations: what was not asked for during a whole one
// is forgotten.
func (m *memory) keep(sum [sha256.Size]byte, f *first) {
	if m.now == nil || len(m.now) >= remembered {
		m.older, m.now = m.now, map[[sha256.Size]byte]*first{}
	}
	m.now[sum] = f
}

// first sets the fields' owner of a new object.
func (f *Fields) first(k resource.Kind, v *resource.Version, live, obj api.Object, manager string) error {
	custom, isCustom := k.(resource.Custom)
	var sum [sha256.Size]byte
	var ok bool
	if isCustom {
		sum, ok = custom.Shape(obj)
	} else {
		sum, ok = fingerprint(v, obj)
	}
	if ok {
		if fields := f.fresh.get(sum); fields != nil {
			if isCustom && claim(obj, manager, k.Info(), fields.tree) {
				return nil
			}
			gvk := servedKind(k.Info(), v)
			now := metav1.NewTime(clock.Now().UTC().Truncate(1e9))
			obj.SetManagedFields([]metav1.ManagedFieldsEntry{{
				Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: gvk.GroupVersion().String(),
				Time: &now, FieldsType: "FieldsV1", FieldsV1: fields.fields,
			}})
			return nil
		}
	}
	if err := f.update(k, v, "", live, obj, manager); err != nil {
		return err
	}
	if list := obj.GetManagedFields(); ok && len(list) == 1 {
		one := &first{fields: list[0].FieldsV1}
		if isCustom && json.Unmarshal(one.fields.Raw, &one.tree) != nil {
			return nil
		}
		f.fresh.put(sum, one)
	}
	return nil
}

// claim writes the only claim of a new unstructured object without the detour
// over the typed form.
func claim(obj api.Object, manager string, i *resource.Info, tree map[string]any) bool {
	u, ok := obj.(*unstructured.Unstructured)
	meta, isMap := u.Object["metadata"].(map[string]any)
	if !ok || !isMap || tree == nil {
		return false
	}
	meta["managedFields"] = []any{map[string]any{
		"manager": manager, "operation": string(metav1.ManagedFieldsOperationUpdate), "apiVersion": i.GroupVersionKind.GroupVersion().String(),
		"time": clock.Now().UTC().Format(time.RFC3339), "fieldsType": "FieldsV1", "fieldsV1": tree,
	}}
	return true
}

// fingerprint names an object's contents, apart from what managedFields never
// show: its name and place.
func fingerprint(v *resource.Version, obj api.Object) (sum [sha256.Size]byte, ok bool) {
	name, ns, uid, at := obj.GetName(), obj.GetNamespace(), obj.GetUID(), obj.GetCreationTimestamp()
	defer func() {
		obj.SetName(name)
		obj.SetNamespace(ns)
		obj.SetUID(uid)
		obj.SetCreationTimestamp(at)
	}()
	obj.SetName("")
	obj.SetNamespace("")
	obj.SetUID("")
	obj.SetCreationTimestamp(metav1.Time{})
	m, ok := obj.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return sum, false
	}
	data, err := m.Marshal()
	if err != nil {
		return sum, false
	}
	h := sha256.New()
	gvk := obj.GetObjectKind().GroupVersionKind()
	io.WriteString(h, gvk.Group+"/"+gvk.Version+"/"+gvk.Kind+"\n")
	if v != nil {
		io.WriteString(h, v.Group+"/"+v.Version+"\n")
	}
	h.Write(data)
	h.Sum(sum[:0])
	return sum, true
}

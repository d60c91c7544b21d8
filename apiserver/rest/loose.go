package rest

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sampan-dev/sampan/api"
)

// metaOf is an object's metadata to be judged. That of an unstructured object
// is read once, without the fields of its claims, which nobody judges and which
// are the larger part of it.
func metaOf(obj api.Object) metav1.Object {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return obj
	}
	m := &metav1.ObjectMeta{
		Name: u.GetName(), GenerateName: u.GetGenerateName(), Namespace: u.GetNamespace(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
		Generation: u.GetGeneration(), CreationTimestamp: u.GetCreationTimestamp(), DeletionTimestamp: u.GetDeletionTimestamp(),
		DeletionGracePeriodSeconds: u.GetDeletionGracePeriodSeconds(), Labels: u.GetLabels(), Annotations: u.GetAnnotations(),
		OwnerReferences: u.GetOwnerReferences(), Finalizers: u.GetFinalizers(),
	}
	for _, c := range claimsOf(u) {
		c, ok := c.(map[string]any)
		if !ok {
			continue
		}
		text := func(key string) string { s, _ := c[key].(string); return s }
		m.ManagedFields = append(m.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: text("manager"), Operation: metav1.ManagedFieldsOperationType(text("operation")), APIVersion: text("apiVersion"),
			FieldsType: text("fieldsType"), Subresource: text("subresource"),
		})
	}
	return m
}

func metadataOf(u *unstructured.Unstructured) map[string]any {
	m, _ := u.Object["metadata"].(map[string]any)
	return m
}

func claimsOf(u *unstructured.Unstructured) []any {
	list, _ := metadataOf(u)["managedFields"].([]any)
	return list
}

// sameLoose is sameButTimes for unstructured objects, without turning their
// claims into structs.
func sameLoose(next, cur *unstructured.Unstructured) {
	a, b := claimsOf(next), claimsOf(cur)
	if len(a) == 0 || len(a) != len(b) {
		return
	}
	for i := range a {
		x, ok := a[i].(map[string]any)
		y, ok2 := b[i].(map[string]any)
		if !ok || !ok2 || !sameMaps(x, y, "time") {
			return
		}
	}
	m, n := metadataOf(next), metadataOf(cur)
	if sameMaps(next.Object, cur.Object, "metadata") && sameMaps(m, n, "managedFields", "resourceVersion") {
		m["managedFields"] = b
	}
}

// sameMaps compares two maps but for some keys.
func sameMaps(a, b map[string]any, but ...string) bool {
	for key, v := range a {
		if w, ok := b[key]; !slices.Contains(but, key) && (!ok || !api.SameLoose(v, w)) {
			return false
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok && !slices.Contains(but, key) {
			return false
		}
	}
	return true
}

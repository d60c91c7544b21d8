// Package configmap defines the ConfigMap kind.
//
// Job: rules and columns of core/v1 ConfigMap.
//
// Not its job: putting configuration into pods.
//
// Invariants: an immutable map stays as it is; data never exceeds 1 MiB.
package configmap

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[corev1.ConfigMap]{
		Version: "v1", Kind: "ConfigMap", Plural: "configmaps",
		Short:    []string{"cm"},
		Validate: validate,
		Columns: []resource.Column[corev1.ConfigMap]{
			resource.NameColumn[corev1.ConfigMap](),
			{
				Name: "Data", Description: resource.Doc(corev1.ConfigMap{}, "data"), Type: "string",
				Cell: func(c *corev1.ConfigMap, _ time.Time) any { return int64(len(c.Data) + len(c.BinaryData)) },
			},
			resource.AgeColumn[corev1.ConfigMap](),
		},
		Unconditional: true,
	})
}

func validate(next, prev *corev1.ConfigMap) (errs field.ErrorList) {
	if prev != nil && prev.Immutable != nil && *prev.Immutable {
		if next.Immutable == nil || !*next.Immutable {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), "field is immutable when `immutable` is set"))
		}
		if !equality.Semantic.DeepEqual(next.Data, prev.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set"))
		}
		if !equality.Semantic.DeepEqual(next.BinaryData, prev.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), "field is immutable when `immutable` is set"))
		}
	}
	total := 0
	for key, value := range next.Data {
		for _, msg := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, msg))
		}
		if _, twice := next.BinaryData[key]; twice {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
		total += len(value)
	}
	for key, value := range next.BinaryData {
		for _, msg := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(field.NewPath("binaryData").Key(key), key, msg))
		}
		total += len(value)
	}
	if total > corev1.MaxSecretSize {
		// The whole object is too long, not one field of it.
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

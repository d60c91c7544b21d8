// Package controllerrevision defines the ControllerRevision.
//
// Job: what the API server knows of a controller's past states.
//
// Not its job: what the data means: that is its controller's.
//
// Invariants: the data never changes.
package controllerrevision

import (
	"bytes"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

type revision = appsv1.ControllerRevision

// Kind is the ControllerRevision.
func Kind() resource.Kind {
	gvk := func(version string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: "apps", Version: version, Kind: "ControllerRevision"}
	}
	return resource.Erase(&resource.Def[revision]{
		Group: "apps", Version: "v1", Kind: "ControllerRevision", Plural: "controllerrevisions",
		Validate: validate,
		Columns: []resource.Column[revision]{
			resource.NameColumn[revision](),
			{Name: "Controller", Description: "Controller of the object", Cell: resource.Cell(controller)},
			{Name: "Revision", Description: resource.Doc(appsv1.ControllerRevision{}, "revision"),
				Cell: resource.Cell(func(r *revision) any { return r.Revision })},
			resource.AgeColumn[revision](),
		},
		Unconditional: true,
		Also: []resource.Version{
			resource.SameShape[appsv1beta2.ControllerRevision, revision](gvk("v1beta2"), gvk("v1")),
			resource.SameShape[appsv1beta1.ControllerRevision, revision](gvk("v1beta1"), gvk("v1")),
		},
	})
}

// controller words the owner in charge as kubectl does: kind.group/name.
func controller(r *revision) any {
	owner := metav1.GetControllerOf(r)
	if owner == nil {
		return "<none>"
	}
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind)
	name := bytes.ToLower([]byte(kind.Kind))
	if kind.Group != "" {
		return fmt.Sprintf("%s.%s/%s", name, kind.Group, owner.Name)
	}
	return fmt.Sprintf("%s/%s", name, owner.Name)
}

func validate(next, prev *revision) field.ErrorList {
	var errs field.ErrorList
	data := next.Data.Raw
	if data == nil && next.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	} else if data != nil {
		var object map[string]any
		if err := json.Unmarshal(data, &object); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("data"), "<value omitted>", fmt.Sprintf("error parsing data: %v", err)))
		}
	}
	errs = append(errs, apivalidation.ValidateNonnegativeField(next.Revision, field.NewPath("revision"))...)
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.Data, prev.Data, field.NewPath("data"))...)
	}
	return errs
}

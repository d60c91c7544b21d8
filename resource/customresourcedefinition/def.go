// Package customresourcedefinition defines the kind that makes kinds.
//
// Job: what the API server knows of a CustomResourceDefinition, v1 and the
// retired v1beta1: defaults, validation of schemas, names, rules and their
// cost, columns, what deletion waits for.
//
// Not its job: serving the kinds so defined, their names' acceptance and the
// removal of their objects (apiserver/crd).
//
// Invariants: judgement is upstream's published validation, over its internal
// type (docs/decisions/custom-resources.md says why).
package customresourcedefinition

import (
	"fmt"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

type definition = apiextensionsv1.CustomResourceDefinition

// GroupResource is how the kind is found.
func GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: apiextensions.GroupName, Resource: "customresourcedefinitions"}
}

// Kind is the CustomResourceDefinition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[definition]{
		Group: apiextensions.GroupName, Version: "v1", Kind: "CustomResourceDefinition", Plural: "customresourcedefinitions",
		Short: []string{"crd", "crds"}, Categories: []string{"api-extensions"}, ClusterScoped: true,
		Prefix:  "apiextensions.k8s.io/customresourcedefinitions",
		Default: apiextensionsv1.SetObjectDefaults_CustomResourceDefinition,
		Prepare: prepare, Generation: func(c *definition) any { return &c.Spec },
		Validate: validate, Warnings: warnings, Name: nameLater,
		Subs: []resource.Sub[definition]{
			resource.StatusSub(func(next, prev *definition) { next.Spec = prev.Spec }, validateStatus),
		},
		BeginDelete: beginDelete, DeleteFinalizers: []string{apiextensionsv1.CustomResourceCleanupFinalizer},
		ResetFields: []string{"status"},
		Columns: []resource.Column[definition]{
			resource.NameColumn[definition](),
			{
				Name: "Created At", Type: "date", Description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
				Cell: func(c *definition, _ time.Time) any { return c.CreationTimestamp.UTC().Format(time.RFC3339) },
			},
		},
		Also: []resource.Version{{
			Group: apiextensions.GroupName, Version: "v1beta1", Retired: true,
			Warning: "apiextensions.k8s.io/v1beta1 CustomResourceDefinition is deprecated in v1.16+, unavailable in v1.22+; use apiextensions.k8s.io/v1 CustomResourceDefinition",
			New:     func() api.Object { return &apiextensionsv1beta1.CustomResourceDefinition{} },
			Default: func(obj api.Object) {
				apiextensionsv1beta1.SetObjectDefaults_CustomResourceDefinition(obj.(*apiextensionsv1beta1.CustomResourceDefinition))
			},
			Store: fromBeta, Show: toBeta,
		}},
	})
}

// prepare keeps the status out of users' hands and remembers every version that
// objects were ever stored in.
func prepare(_ *resource.Request, next, prev *definition) {
	next.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	if prev != nil {
		prev.Status.DeepCopyInto(&next.Status)
	}
	for _, v := range next.Spec.Versions {
		if v.Storage {
			if !apihelpers.IsStoredVersion(next, v.Name) {
				next.Status.StoredVersions = append(next.Status.StoredVersions, v.Name)
			}
			break
		}
	}
}

// beginDelete says that objects will go before their kind does.
func beginDelete(next *definition) {
	apihelpers.RemoveCRDCondition(next, apiextensionsv1.Terminating)
	next.Status.Conditions = append(next.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionPending",
		Message:            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
		LastTransitionTime: *next.DeletionTimestamp, ObservedGeneration: next.Generation,
	})
}

// internal is the definition as upstream's rules want it.
func internal(c *definition) (*apiextensions.CustomResourceDefinition, error) {
	out := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(c.DeepCopy(), out, nil); err != nil {
		return nil, fmt.Errorf("convert: %s: %w", c.Name, err)
	}
	return out, nil
}

func fromBeta(src api.Object) (api.Object, error) {
	mid, out := &apiextensions.CustomResourceDefinition{}, &definition{}
	old := src.DeepCopyObject().(*apiextensionsv1beta1.CustomResourceDefinition)
	if err := apiextensionsv1beta1.Convert_v1beta1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(old, mid, nil); err != nil {
		return nil, fmt.Errorf("convert: %s: %w", old.Name, err)
	}
	if err := apiextensionsv1.Convert_apiextensions_CustomResourceDefinition_To_v1_CustomResourceDefinition(mid, out, nil); err != nil {
		return nil, fmt.Errorf("convert: %s: %w", old.Name, err)
	}
	return out, nil
}

func toBeta(src api.Object) (api.Object, error) {
	mid, err := internal(src.(*definition))
	if err != nil {
		return nil, err
	}
	out := &apiextensionsv1beta1.CustomResourceDefinition{}
	if err := apiextensionsv1beta1.Convert_apiextensions_CustomResourceDefinition_To_v1beta1_CustomResourceDefinition(mid, out, nil); err != nil {
		return nil, fmt.Errorf("convert: %s: %w", mid.Name, err)
	}
	if out.Spec.Group == "" { // nobody has said yet what to do with unknown fields
		out.Spec.PreserveUnknownFields = nil
	}
	return out, nil
}

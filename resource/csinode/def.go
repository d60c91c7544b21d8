// Package csinode defines the CSINode kind.
//
// Job: rules and columns of storage.k8s.io/v1 CSINode and its retired v1beta1.
//
// Not its job: registering drivers (the kubelet's).
//
// Invariants: a driver, once listed, keeps its node id and topology keys.
package csinode

import (
	"fmt"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

const (
	maxDriver = 63
	maxNodeID = 256
)

type node = storagev1.CSINode

// Kind returns the definition.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[node]{
		Group: storagev1.GroupName, Version: "v1", Kind: "CSINode", Plural: "csinodes", ClusterScoped: true,
		Validate: validate,
		Columns: []resource.Column[node]{
			resource.NameColumn[node](),
			{Name: "Drivers", Type: "integer", Description: "Drivers indicates the number of CSI drivers registered on the node", Cell: func(n *node, _ time.Time) any { return int64(len(n.Spec.Drivers)) }},
			resource.AgeColumn[node](),
		},
		Also: []resource.Version{resource.SameShape[storagev1beta1.CSINode, node](
			storagev1beta1.SchemeGroupVersion.WithKind("CSINode"), storagev1.SchemeGroupVersion.WithKind("CSINode"))},
	})
}

func validate(next, prev *node) (errs field.ErrorList) {
	path := field.NewPath("spec", "drivers")
	seen := map[string]bool{}
	for i := range next.Spec.Drivers {
		d, at := &next.Spec.Drivers[i], path.Index(i)
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
		errs = append(errs, validateDriver(d, at)...)
		if prev != nil {
			errs = append(errs, validateKept(d, prev, at)...)
		}
	}
	return errs
}

func validateDriver(d *storagev1.CSINodeDriver, path *field.Path) (errs field.ErrorList) {
	if d.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else {
		if len(d.Name) > maxDriver {
			errs = append(errs, field.TooLong(path.Child("name"), "", maxDriver))
		}
		for _, msg := range validation.IsDNS1123Subdomain(d.Name) {
			errs = append(errs, field.Invalid(path.Child("name"), d.Name, msg))
		}
	}
	if d.NodeID == "" {
		errs = append(errs, field.Required(path.Child("nodeID"), ""))
	} else if len(d.NodeID) > maxNodeID {
		errs = append(errs, field.Invalid(path.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
	}
	if d.Allocatable != nil && d.Allocatable.Count != nil && *d.Allocatable.Count < 0 {
		errs = append(errs, field.Invalid(path.Child("allocatable", "count"), *d.Allocatable.Count, "must be greater than or equal to 0"))
	}
	seen := map[string]bool{}
	for _, key := range d.TopologyKeys {
		if key == "" {
			errs = append(errs, field.Required(path.Child("topologyKeys"), ""))
		}
		if seen[key] {
			errs = append(errs, field.Duplicate(path.Child("topologyKeys"), key))
		}
		seen[key] = true
		for _, msg := range validation.IsQualifiedName(key) {
			errs = append(errs, field.Invalid(path.Child("topologyKeys"), key, msg))
		}
	}
	return errs
}

// validateKept: what volumes were placed by stays; how many fit may be learned.
func validateKept(d *storagev1.CSINodeDriver, prev *node, path *field.Path) field.ErrorList {
	for i := range prev.Spec.Drivers {
		old := &prev.Spec.Drivers[i]
		if old.Name != d.Name {
			continue
		}
		same := *old
		same.Allocatable = d.Allocatable
		if !equality.Semantic.DeepEqual(same, *d) {
			return field.ErrorList{field.Invalid(path, *d, "field is immutable")}
		}
	}
	return nil
}

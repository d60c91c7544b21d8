// Package runtimeclass defines the RuntimeClass.
//
// Job: what the API server knows of the ways to run containers.
//
// Not its job: adding overhead to pods (admission).
//
// Invariants: the handler never changes.
package runtimeclass

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

type class = nodev1.RuntimeClass

// Kind is the RuntimeClass.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[class]{
		Group: "node.k8s.io", Version: "v1", Kind: "RuntimeClass", Plural: "runtimeclasses", ClusterScoped: true,
		Also: earlier(),
		Default: func(c *class) {
			if c.Overhead != nil {
				for name, q := range c.Overhead.PodFixed {
					q.RoundUp(-3)
					c.Overhead.PodFixed[name] = q
				}
			}
		},
		Validate: validate,
		Columns: []resource.Column[class]{
			resource.NameColumn[class](),
			{Name: "Handler", Description: resource.Doc(class{}, "handler"), Cell: resource.Cell(func(c *class) any { return c.Handler })},
			resource.AgeColumn[class](),
		},
	})
}

func validate(next, prev *class) field.ErrorList {
	var errs field.ErrorList
	for _, m := range apivalidation.NameIsDNSLabel(next.Handler, false) {
		errs = append(errs, field.Invalid(field.NewPath("handler"), next.Handler, m))
	}
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(next.Handler, prev.Handler, field.NewPath("handler"))...)
	}
	if o := next.Overhead; o != nil {
		for _, name := range slices.Sorted(maps.Keys(o.PodFixed)) {
			at := field.NewPath("overhead", "podFixed").Key(string(name))
			errs = append(errs, podspec.ResourceName(name, at)...)
			errs = append(errs, podspec.Quantity(name, o.PodFixed[name], at)...)
		}
	}
	if s := next.Scheduling; s != nil {
		path := field.NewPath("scheduling")
		errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
		errs = append(errs, podspec.Tolerations(s.Tolerations, path.Child("tolerations"))...)
		for i, t := range s.Tolerations {
			if slices.ContainsFunc(s.Tolerations[:i], func(o corev1.Toleration) bool { return equality.Semantic.DeepEqual(o, t) }) {
				errs = append(errs, field.Duplicate(path.Child("tolerations").Index(i), t))
			}
		}
	}
	return errs
}

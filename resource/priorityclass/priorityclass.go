// Package priorityclass defines the PriorityClass.
//
// Job: what the API server knows of priorities of pods.
//
// Not its job: giving pods their priority (admission).
//
// Invariants: a class keeps its value; names of the system are the system's.
package priorityclass

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
)

type class = schedulingv1.PriorityClass

// What users may give, and what the system keeps.
const (
	highest = int32(1000000000)
	prefix  = "system-"
)

var known = map[string]int32{"system-node-critical": 2*highest + 1000, "system-cluster-critical": 2 * highest}

// beta is the version of old.
func beta() resource.Version {
	v := resource.SameShape[schedulingv1beta1.PriorityClass, class](schedulingv1beta1.SchemeGroupVersion.WithKind("PriorityClass"), schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"))
	v.Retired = true
	return v
}

// Kind is the PriorityClass.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[class]{
		Group: "scheduling.k8s.io", Version: "v1", Kind: "PriorityClass", Plural: "priorityclasses",
		Short: []string{"pc"}, ClusterScoped: true,
		Also: []resource.Version{beta()},
		Default: func(c *class) {
			if c.PreemptionPolicy == nil {
				c.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority)
			}
		},
		// Kept at one: nothing that counts may change.
		Generation: func(*class) any { return nil },
		Validate:   validate,
		Columns: []resource.Column[class]{
			resource.NameColumn[class](),
			{Name: "Value", Type: "integer", Description: resource.Doc(class{}, "value"), Cell: resource.Cell(func(c *class) any { return int64(c.Value) })},
			{Name: "Global-Default", Type: "boolean", Description: resource.Doc(class{}, "globalDefault"), Cell: resource.Cell(func(c *class) any { return c.GlobalDefault })},
			resource.AgeColumn[class](),
			{Name: "PreemptionPolicy", Description: resource.Doc(class{}, "preemptionPolicy"),
				Cell: resource.Cell(func(c *class) any { return string(ptr.Deref(c.PreemptionPolicy, corev1.PreemptLowerPriority)) })},
		},
		Unconditional: true,
	})
}

func validate(next, prev *class) field.ErrorList {
	var errs field.ErrorList
	if prev != nil {
		if next.Value != prev.Value {
			errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
		}
		return append(errs, apivalidation.ValidateImmutableField(next.PreemptionPolicy, prev.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
	}
	if strings.HasPrefix(next.Name, prefix) {
		if text := notSystem(next); text != "" {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with '"+prefix+"' prefix are reserved for system use only. error: "+text))
		}
	} else if next.Value > highest {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", highest)))
	}
	if p := next.PreemptionPolicy; p != nil && *p != corev1.PreemptLowerPriority && *p != corev1.PreemptNever {
		errs = append(errs, field.NotSupported(field.NewPath("preemptionPolicy"), *p, []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}))
	}
	return errs
}

// notSystem says why a class is none of the system's own.
func notSystem(c *class) string {
	value, ok := known[c.Name]
	switch {
	case !ok:
		return fmt.Sprintf("%v is not a known system priority class", c.Name)
	case c.Value != value:
		return fmt.Sprintf("value of %v PriorityClass must be %v", c.Name, value)
	case c.GlobalDefault:
		return fmt.Sprintf("globalDefault of %v PriorityClass must be %v", c.Name, false)
	}
	return ""
}

// Package device defines the kinds of resource.k8s.io: devices that drivers
// offer and pods claim.
//
// Job: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice and
// DeviceTaintRule: defaults, rules and columns; their v1beta2.
//
// Not its job: which claim gets which device (scheduler), what expressions
// mean when they run.
//
// Invariants: what a claim asks for never changes; what was allocated to it
// never changes, it is only given back.
package device

import (
	"strings"
	"time"

	devicev1 "k8s.io/api/resource/v1"
	devicev1beta2 "k8s.io/api/resource/v1beta2"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/resource"
)

const group = devicev1.GroupName

// Kinds are all kinds of the group, in order.
func Kinds() []resource.Kind {
	return []resource.Kind{classes(), rules(), claims(), templates(), offers()}
}

// earlier is a kind's v1beta2, which is no longer served by default upstream.
func earlier[V, T any](kind string) []resource.Version {
	v := resource.SameShape[V, T](devicev1beta2.SchemeGroupVersion.WithKind(kind), devicev1.SchemeGroupVersion.WithKind(kind))
	v.Retired = true
	return []resource.Version{v}
}

func classes() resource.Kind {
	type class = devicev1.DeviceClass
	return resource.Erase(&resource.Def[class]{
		Group: group, Version: "v1", Kind: "DeviceClass", Plural: "deviceclasses", ClusterScoped: true,
		Generation: func(c *class) any { return &c.Spec },
		Validate:   validateClass,
		Columns:    []resource.Column[class]{resource.NameColumn[class](), resource.AgeColumn[class]()},
		Also:       earlier[devicev1beta2.DeviceClass, class]("DeviceClass"), Unconditional: true,
	})
}

func claims() resource.Kind {
	type claim = devicev1.ResourceClaim
	return resource.Erase(&resource.Def[claim]{
		Group: group, Version: "v1", Kind: "ResourceClaim", Plural: "resourceclaims",
		Default: func(c *claim) { defaultClaim(&c.Spec) },
		Prepare: func(_ *resource.Request, next, prev *claim) {
			next.Status = devicev1.ResourceClaimStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Validate: func(next, prev *claim) field.ErrorList {
			if prev != nil {
				return apivalidation.ValidateImmutableField(next.Spec, prev.Spec, field.NewPath("spec"))
			}
			return validateClaim(&next.Spec, field.NewPath("spec"))
		},
		Subs: []resource.Sub[claim]{resource.StatusSub(func(next, prev *claim) { next.Spec = *prev.Spec.DeepCopy() },
			func(next, prev *claim) field.ErrorList { return validateStatus(next, prev) }, "metadata", "spec")},
		Columns: []resource.Column[claim]{
			resource.NameColumn[claim](),
			{Name: "State", Description: "A summary of the current state (allocated, pending, reserved, etc.).", Cell: func(c *claim, _ time.Time) any { return state(c) }},
			resource.AgeColumn[claim](),
		},
		Unconditional: true, ResetFields: []string{"status"},
		Also: earlier[devicev1beta2.ResourceClaim, claim]("ResourceClaim"),
	})
}

func state(c *devicev1.ResourceClaim) string {
	var out []string
	if c.DeletionTimestamp != nil {
		out = append(out, "deleted")
	}
	if c.Status.Allocation == nil {
		if c.DeletionTimestamp == nil {
			out = append(out, "pending")
		}
		return strings.Join(out, ",")
	}
	out = append(out, "allocated")
	if len(c.Status.ReservedFor) > 0 {
		out = append(out, "reserved")
	}
	return strings.Join(out, ",")
}

func templates() resource.Kind {
	type template = devicev1.ResourceClaimTemplate
	return resource.Erase(&resource.Def[template]{
		Group: group, Version: "v1", Kind: "ResourceClaimTemplate", Plural: "resourceclaimtemplates",
		Default: func(t *template) { defaultClaim(&t.Spec.Spec) },
		Validate: func(next, prev *template) field.ErrorList {
			path := field.NewPath("spec")
			if prev != nil {
				return apivalidation.ValidateImmutableField(next.Spec, prev.Spec, path)
			}
			errs := apivalidation.ValidateAnnotations(next.Spec.Annotations, path.Child("metadata", "annotations"))
			errs = append(errs, metavalidation.ValidateLabels(next.Spec.Labels, path.Child("metadata", "labels"))...)
			return append(errs, validateClaim(&next.Spec.Spec, path.Child("spec"))...)
		},
		Columns:       []resource.Column[template]{resource.NameColumn[template](), resource.AgeColumn[template]()},
		Unconditional: true,
		Also:          earlier[devicev1beta2.ResourceClaimTemplate, template]("ResourceClaimTemplate"),
	})
}

func offers() resource.Kind {
	type slice = devicev1.ResourceSlice
	doc := func(field string) string { return resource.Doc(devicev1.ResourceSliceSpec{}, field) }
	return resource.Erase(&resource.Def[slice]{
		Group: group, Version: "v1", Kind: "ResourceSlice", Plural: "resourceslices", ClusterScoped: true,
		Generation: func(s *slice) any { return &s.Spec },
		Prepare: func(r *resource.Request, next, _ *slice) {
			for i := range next.Spec.Devices {
				stamp(next.Spec.Devices[i].Taints, r.Now)
			}
		},
		Validate: func(next, prev *slice) field.ErrorList { return validateSlice(next, prev) },
		Columns: []resource.Column[slice]{
			resource.NameColumn[slice](),
			{Name: "Node", Description: doc("nodeName"), Cell: func(s *slice, _ time.Time) any { return ptr.Deref(s.Spec.NodeName, "") }},
			{Name: "Driver", Description: doc("driver"), Cell: func(s *slice, _ time.Time) any { return s.Spec.Driver }},
			{Name: "Pool", Description: resource.Doc(devicev1.ResourcePool{}, "name"), Cell: func(s *slice, _ time.Time) any { return s.Spec.Pool.Name }},
			resource.AgeColumn[slice](),
		},
		Selectable: map[string]func(*slice) string{
			"spec.nodeName": func(s *slice) string { return ptr.Deref(s.Spec.NodeName, "") },
			"spec.driver":   func(s *slice) string { return s.Spec.Driver },
		},
		Indexes: []string{"spec.nodeName"}, Unconditional: true,
		Also: earlier[devicev1beta2.ResourceSlice, slice]("ResourceSlice"),
	})
}

func rules() resource.Kind {
	type rule = devicev1.DeviceTaintRule
	doc := func(field string) string { return resource.Doc(devicev1.DeviceTaint{}, field) }
	return resource.Erase(&resource.Def[rule]{
		Group: group, Version: "v1", Kind: "DeviceTaintRule", Plural: "devicetaintrules", ClusterScoped: true,
		Generation: func(r *rule) any { return &r.Spec },
		Prepare: func(r *resource.Request, next, prev *rule) {
			next.Status = devicev1.DeviceTaintRuleStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
			if next.Spec.Taint.TimeAdded == nil || prev != nil && prev.Spec.Taint.Effect != next.Spec.Taint.Effect {
				at := metav1.NewTime(r.Now.Truncate(time.Second))
				next.Spec.Taint.TimeAdded = &at
			}
		},
		Validate: func(next, _ *rule) field.ErrorList { return validateRule(&next.Spec, field.NewPath("spec")) },
		Subs: []resource.Sub[rule]{resource.StatusSub(func(next, prev *rule) { next.Spec = *prev.Spec.DeepCopy() },
			func(next, _ *rule) field.ErrorList {
				path := field.NewPath("status", "conditions")
				errs := metavalidation.ValidateConditions(next.Status.Conditions, path)
				if n := len(next.Status.Conditions); n > devicev1.DeviceTaintRuleStatusMaxConditions {
					errs = append(errs, field.TooMany(path, n, devicev1.DeviceTaintRuleStatusMaxConditions))
				}
				return errs
			}, "metadata", "spec")},
		Columns: []resource.Column[rule]{
			resource.NameColumn[rule](),
			{Name: "Key", Description: doc("key"), Cell: func(r *rule, _ time.Time) any { return r.Spec.Taint.Key }},
			{Name: "Value", Description: doc("value"), Cell: func(r *rule, _ time.Time) any { return r.Spec.Taint.Value }},
			{Name: "Effect", Description: doc("effect"), Cell: func(r *rule, _ time.Time) any { return string(r.Spec.Taint.Effect) }},
			{Name: "TimeAdded", Description: doc("timeAdded"), Cell: func(r *rule, now time.Time) any {
				if r.Spec.Taint.TimeAdded == nil {
					return ""
				}
				return resource.Since(*r.Spec.Taint.TimeAdded, now)
			}},
			resource.AgeColumn[rule](),
		},
		Unconditional: true, ResetFields: []string{"status"},
		Also: earlier[devicev1beta2.DeviceTaintRule, rule]("DeviceTaintRule"),
	})
}

// stamp says of taints without a time that they are new.
func stamp(taints []devicev1.DeviceTaint, now time.Time) {
	for i := range taints {
		if taints[i].TimeAdded == nil {
			at := metav1.NewTime(now.Truncate(time.Second))
			taints[i].TimeAdded = &at
		}
	}
}

func defaultClaim(s *devicev1.ResourceClaimSpec) {
	mode := func(m *devicev1.DeviceAllocationMode, count *int64) {
		if *m == "" {
			*m = devicev1.DeviceAllocationModeExactCount
		}
		if *m == devicev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
	}
	tolerate := func(list []devicev1.DeviceToleration) {
		for i := range list {
			if list[i].Operator == "" {
				list[i].Operator = devicev1.DeviceTolerationOpEqual
			}
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			mode(&r.Exactly.AllocationMode, &r.Exactly.Count)
			tolerate(r.Exactly.Tolerations)
		}
		for k := range r.FirstAvailable {
			mode(&r.FirstAvailable[k].AllocationMode, &r.FirstAvailable[k].Count)
			tolerate(r.FirstAvailable[k].Tolerations)
		}
	}
}

// Package daemonset defines the DaemonSet.
//
// Job: what the API server knows of daemon sets, and their retired versions.
//
// Not its job: the template (semantics/podspec), placing pods (controller).
//
// Invariants: the selector never changes.
package daemonset

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the DaemonSet.
func Kind() resource.Kind {
	type ds = appsv1.DaemonSet
	return resource.Erase(&resource.Def[ds]{
		Group: "apps", Version: "v1", Kind: "DaemonSet", Plural: "daemonsets",
		Short: []string{"ds"}, Categories: []string{"all"},
		Default: setDefaults,
		Prepare: func(_ *resource.Request, next, prev *ds) {
			next.Status = appsv1.DaemonSetStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Generation: func(d *ds) any { return &d.Spec },
		Validate:   validate,
		Warnings: func(next, prev *ds) []string {
			if prev != nil && prev.Generation == next.Generation {
				return nil
			}
			return podspec.TemplateWarnings(&next.Spec.Template, field.NewPath("spec", "template"))
		},
		Subs:          []resource.Sub[ds]{resource.StatusSub(func(next, prev *ds) { next.Spec = *prev.Spec.DeepCopy() }, validateStatus)},
		Columns:       columns(),
		Unconditional: true,
		ResetFields:   []string{"status"},
		Also:          versions(),
	})
}

func setDefaults(d *appsv1.DaemonSet) {
	s := &d.Spec
	podspec.DefaultTemplate(&s.Template)
	if s.UpdateStrategy.Type == "" {
		s.UpdateStrategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if s.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if s.UpdateStrategy.RollingUpdate == nil {
			s.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		r := s.UpdateStrategy.RollingUpdate
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		}
		if r.MaxSurge == nil {
			r.MaxSurge = ptr.To(intstr.FromInt32(0))
		}
	}
	if s.RevisionHistoryLimit == nil {
		s.RevisionHistoryLimit = ptr.To[int32](10)
	}
}

func versions() []resource.Version {
	gvk := func(group, version string) schema.GroupVersionKind {
		return schema.GroupVersionKind{Group: group, Version: version, Kind: "DaemonSet"}
	}
	stored := gvk("apps", "v1")
	b2 := resource.SameShape[appsv1beta2.DaemonSet, appsv1.DaemonSet](gvk("apps", "v1beta2"), stored)
	ext := resource.SameShape[extensionsv1beta1.DaemonSet, appsv1.DaemonSet](gvk("extensions", "v1beta1"), stored)
	b2.Orphans, ext.Orphans = true, true
	ext.Default = func(obj api.Object) {
		d := obj.(*extensionsv1beta1.DaemonSet)
		podspec.SelectorFromLabels(&d.ObjectMeta, &d.Spec.Selector, &d.Spec.Template)
		if d.Spec.UpdateStrategy.Type == "" {
			d.Spec.UpdateStrategy.Type = extensionsv1beta1.OnDeleteDaemonSetStrategyType
		}
	}
	keepTemplateGeneration(&ext)
	return []resource.Version{b2, ext}
}

// keepTemplateGeneration carries spec.templateGeneration, which the stored
// version lacks, in the annotation that upstream uses for it.
func keepTemplateGeneration(v *resource.Version) {
	store, show := v.Store, v.Show
	v.Store = func(src api.Object) (api.Object, error) {
		out, err := store(src)
		if n := src.(*extensionsv1beta1.DaemonSet).Spec.TemplateGeneration; err == nil && n != 0 {
			notes := maps.Clone(out.GetAnnotations())
			if notes == nil {
				notes = map[string]string{}
			}
			notes[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
			out.SetAnnotations(notes)
		}
		return out, err
	}
	v.Show = func(src api.Object) (api.Object, error) {
		out, err := show(src)
		if err != nil {
			return nil, err
		}
		notes := out.GetAnnotations()
		if n, bad := strconv.ParseInt(notes[appsv1.DeprecatedTemplateGeneration], 10, 64); bad == nil {
			out.(*extensionsv1beta1.DaemonSet).Spec.TemplateGeneration = n
			notes = maps.Clone(notes)
			delete(notes, appsv1.DeprecatedTemplateGeneration)
			out.SetAnnotations(notes)
		}
		return out, nil
	}
}

func validate(next, prev *appsv1.DaemonSet) field.ErrorList {
	s, path := &next.Spec, field.NewPath("spec")
	errs := podspec.Selector(s.Selector, "daemonset", path.Child("selector"))
	errs = append(errs, podspec.LongRunning(&s.Template, s.Selector, path)...)
	errs = append(errs, podspec.NoDeadline(&s.Template, "DaemonSet", path.Child("template"))...)
	errs = append(errs, podspec.NonNegative(path, map[string]int32{
		"minReadySeconds": s.MinReadySeconds, "revisionHistoryLimit": ptr.Deref(s.RevisionHistoryLimit, 0),
	})...)
	errs = append(errs, validateStrategy(&s.UpdateStrategy, path.Child("updateStrategy"))...)
	if prev != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Selector, prev.Spec.Selector, path.Child("selector"))...)
	}
	return errs
}

func validateStrategy(s *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch {
	case s.Type == appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case s.Type != appsv1.RollingUpdateDaemonSetStrategyType:
		return field.ErrorList{field.NotSupported(path, s, []appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
	case s.RollingUpdate == nil:
		return field.ErrorList{field.Required(path.Child("rollingUpdate"), "")}
	}
	r, at := s.RollingUpdate, path.Child("rollingUpdate")
	errs := podspec.IntOrPercent(r.MaxUnavailable, at.Child("maxUnavailable"))
	errs = append(errs, podspec.IntOrPercent(r.MaxSurge, at.Child("maxSurge"))...)
	errs = append(errs, podspec.AtMostAll(r.MaxUnavailable, at.Child("maxUnavailable"))...)
	errs = append(errs, podspec.AtMostAll(r.MaxSurge, at.Child("maxSurge"))...)
	some, surge := !podspec.IsZero(r.MaxUnavailable), !podspec.IsZero(r.MaxSurge)
	switch {
	case some && surge:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), r.MaxSurge, "may not be set when maxUnavailable is non-zero"))
	case !some && !surge:
		errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateStatus(next, prev *appsv1.DaemonSet) field.ErrorList {
	s, path := &next.Status, field.NewPath("status")
	errs := podspec.NonNegative(path, map[string]int32{
		"currentNumberScheduled": s.CurrentNumberScheduled, "numberMisscheduled": s.NumberMisscheduled,
		"desiredNumberScheduled": s.DesiredNumberScheduled, "numberReady": s.NumberReady,
		"updatedNumberScheduled": s.UpdatedNumberScheduled, "numberAvailable": s.NumberAvailable,
		"numberUnavailable": s.NumberUnavailable, "collisionCount": ptr.Deref(s.CollisionCount, 0),
	})
	errs = append(errs, apivalidation.ValidateNonnegativeField(s.ObservedGeneration, path.Child("observedGeneration"))...)
	if prev != nil && prev.Status.CollisionCount != nil && ptr.Deref(s.CollisionCount, -1) < *prev.Status.CollisionCount {
		errs = append(errs, field.Invalid(path.Child("collisionCount"), ptr.Deref(s.CollisionCount, 0), "cannot be decremented"))
	}
	return errs
}

func columns() []resource.Column[appsv1.DaemonSet] {
	type ds = appsv1.DaemonSet
	number := func(name, doc string, f func(*ds) int32) resource.Column[ds] {
		return resource.Column[ds]{Name: name, Type: "integer", Description: resource.Doc(appsv1.DaemonSetStatus{}, doc),
			Cell: resource.Cell(func(d *ds) any { return int64(f(d)) })}
	}
	out := []resource.Column[ds]{
		resource.NameColumn[ds](),
		number("Desired", "desiredNumberScheduled", func(d *ds) int32 { return d.Status.DesiredNumberScheduled }),
		number("Current", "currentNumberScheduled", func(d *ds) int32 { return d.Status.CurrentNumberScheduled }),
		number("Ready", "numberReady", func(d *ds) int32 { return d.Status.NumberReady }),
		number("Up-to-date", "updatedNumberScheduled", func(d *ds) int32 { return d.Status.UpdatedNumberScheduled }),
		number("Available", "numberAvailable", func(d *ds) int32 { return d.Status.NumberAvailable }),
		{Name: "Node Selector", Description: resource.Doc(corev1.PodSpec{}, "nodeSelector"),
			Cell: resource.Cell(func(d *ds) any { return resource.LabelsCell(d.Spec.Template.Spec.NodeSelector) })},
		resource.AgeColumn[ds](),
	}
	out = append(out, resource.TemplateColumns(func(d *ds) *corev1.PodTemplateSpec { return &d.Spec.Template })...)
	return append(out, resource.Column[ds]{
		Name: "Selector", Wide: true, Description: resource.Doc(appsv1.DaemonSetSpec{}, "selector"),
		Cell: resource.Cell(func(d *ds) any { return resource.SelectorCell(d.Spec.Selector) }),
	})
}

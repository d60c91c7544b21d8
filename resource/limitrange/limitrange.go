// Package limitrange defines the LimitRange.
//
// Job: what the API server knows of a namespace's bounds and defaults.
//
// Not its job: applying them to pods (admission).
//
// Invariants: every item is consistent: min ≤ default request ≤ default ≤ max.
package limitrange

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	def "github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/semantics/podspec"
)

// Kind is the LimitRange.
func Kind() def.Kind {
	return def.Erase(&def.Def[corev1.LimitRange]{
		Version: "v1", Kind: "LimitRange", Plural: "limitranges", Short: []string{"limits"},
		Default: func(l *corev1.LimitRange) {
			for i := range l.Spec.Limits {
				setDefaults(&l.Spec.Limits[i])
			}
		},
		Validate: validate,
		Columns: []def.Column[corev1.LimitRange]{
			def.NameColumn[corev1.LimitRange](),
			{Name: "Created At", Description: def.Doc(corev1.LimitRange{}.ObjectMeta, "creationTimestamp"),
				Cell: def.Cell(func(l *corev1.LimitRange) any { return l.CreationTimestamp.UTC().Format(time.RFC3339) })},
		},
		Unconditional:  true,
		CreateOnUpdate: true,
	})
}

// setDefaults derives what a container gets from what it may have.
func setDefaults(l *corev1.LimitRangeItem) {
	if l.Type == corev1.LimitTypeContainer {
		inherit(&l.Default, l.Max)
		inherit(&l.DefaultRequest, l.Default)
		inherit(&l.DefaultRequest, l.Min)
	}
	for _, list := range []corev1.ResourceList{l.Max, l.Min, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
		for name, q := range list {
			q.RoundUp(-3)
			list[name] = q
		}
	}
}

// inherit fills the gaps of list from others.
func inherit(list *corev1.ResourceList, from corev1.ResourceList) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	for name, q := range from {
		if _, ok := (*list)[name]; !ok {
			(*list)[name] = q.DeepCopy()
		}
	}
}

func validate(next, _ *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.LimitType]bool{}
	for i := range next.Spec.Limits {
		l, path := &next.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateType(string(l.Type), path.Child("type"))...)
		if seen[l.Type] {
			errs = append(errs, field.Duplicate(path.Child("type"), l.Type))
		}
		seen[l.Type] = true
		errs = append(errs, validateItem(l, path)...)
	}
	return errs
}

func validateType(value string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, m := range validation.IsQualifiedName(value) {
		errs = append(errs, field.Invalid(path, value, m))
	}
	if len(errs) == 0 && !strings.Contains(value, "/") && value != string(corev1.LimitTypePod) &&
		value != string(corev1.LimitTypeContainer) && value != string(corev1.LimitTypePersistentVolumeClaim) {
		errs = append(errs, field.Invalid(path, value, "must be a standard limit type or fully qualified"))
	}
	return errs
}

func validateItem(l *corev1.LimitRangeItem, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[corev1.ResourceName]bool{}
	judge := func(list corev1.ResourceList, field string) {
		for name := range list {
			names[name] = true
			errs = append(errs, validateName(l.Type, name, path.Child(field).Key(string(name)))...)
		}
	}
	judge(l.Max, "max")
	judge(l.Min, "min")
	if l.Type == corev1.LimitTypePod {
		const text = "may not be specified when `type` is 'Pod'"
		if len(l.Default) > 0 {
			errs = append(errs, field.Forbidden(path.Child("default"), text))
		}
		if len(l.DefaultRequest) > 0 {
			errs = append(errs, field.Forbidden(path.Child("defaultRequest"), text))
		}
	} else {
		judge(l.Default, "default")
		judge(l.DefaultRequest, "defaultRequest")
	}
	if l.Type == corev1.LimitTypePersistentVolumeClaim {
		_, least := l.Min[corev1.ResourceStorage]
		_, most := l.Max[corev1.ResourceStorage]
		if !least && !most {
			errs = append(errs, field.Required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	judge(l.MaxLimitRequestRatio, "maxLimitRequestRatio")
	sorted := make([]corev1.ResourceName, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		errs = append(errs, validateOrder(l, name, path)...)
	}
	return errs
}

func validateName(t corev1.LimitType, name corev1.ResourceName, path *field.Path) field.ErrorList {
	if t == corev1.LimitTypePod || t == corev1.LimitTypeContainer {
		return podspec.ResourceName(name, path)
	}
	var errs field.ErrorList
	for _, m := range validation.IsQualifiedName(string(name)) {
		errs = append(errs, field.Invalid(path, name, m))
	}
	return errs
}

func validateOrder(l *corev1.LimitRangeItem, name corev1.ResourceName, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	get := func(list corev1.ResourceList) *resource.Quantity {
		if q, ok := list[name]; ok {
			return &q
		}
		return nil
	}
	least, most, limit, request, ratio := get(l.Min), get(l.Max), get(l.Default), get(l.DefaultRequest), get(l.MaxLimitRequestRatio)
	order := func(a, b *resource.Quantity, at string, culprit *resource.Quantity, format string) {
		if a != nil && b != nil && a.Cmp(*b) > 0 {
			errs = append(errs, field.Invalid(path.Child(at).Key(string(name)), *culprit, fmt.Sprintf(format, a.String(), b.String())))
		}
	}
	order(least, most, "min", least, "min value %s is greater than max value %s")
	order(least, request, "defaultRequest", request, "min value %s is greater than default request value %s")
	order(request, most, "defaultRequest", request, "default request value %s is greater than max value %s")
	order(request, limit, "defaultRequest", request, "default request value %s is greater than default limit value %s")
	order(least, limit, "default", least, "min value %s is greater than default value %s")
	order(limit, most, "default", most, "default value %s is greater than max value %s")
	if ratio == nil {
		return errs
	}
	at := path.Child("maxLimitRequestRatio").Key(string(name))
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(at, *ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String())))
	}
	if least != nil && most != nil && least.Sign() > 0 {
		if bound := most.AsApproximateFloat64() / least.AsApproximateFloat64(); ratio.AsApproximateFloat64() > bound {
			errs = append(errs, field.Invalid(at, *ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), bound)))
		}
	}
	return errs
}

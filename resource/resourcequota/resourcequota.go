// Package resourcequota defines the ResourceQuota.
//
// Job: what the API server knows of a namespace's quotas.
//
// Not its job: counting (controller), refusing what exceeds (admission).
//
// Invariants: scopes never change.
package resourcequota

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

type quota = corev1.ResourceQuota

// Kind is the ResourceQuota.
func Kind() resource.Kind {
	return resource.Erase(&resource.Def[quota]{
		Version: "v1", Kind: "ResourceQuota", Plural: "resourcequotas", Short: []string{"quota"},
		Default: func(q *quota) {
			for _, list := range []corev1.ResourceList{q.Spec.Hard, q.Status.Hard, q.Status.Used} {
				for name, amount := range list {
					amount.RoundUp(-3)
					list[name] = amount
				}
			}
		},
		Prepare: func(_ *resource.Request, next, prev *quota) {
			next.Status = corev1.ResourceQuotaStatus{}
			if prev != nil {
				next.Status = *prev.Status.DeepCopy()
			}
		},
		Validate: validate,
		Subs:     []resource.Sub[quota]{resource.StatusSub(func(next, prev *quota) { next.Spec = *prev.Spec.DeepCopy() }, validateStatus)},
		Columns: []resource.Column[quota]{
			resource.NameColumn[quota](),
			{Name: "Request", Description: "Request represents a minimum amount of cpu/memory that a container may consume.",
				Cell: resource.Cell(func(q *quota) any { return usage(q, false) })},
			{Name: "Limit", Description: "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
				Cell: resource.Cell(func(q *quota) any { return usage(q, true) })},
			resource.AgeColumn[quota](),
		},
		Unconditional: true,
		ResetFields:   []string{"status"},
	})
}

// usage words used and hard amounts, of limits or of all else.
func usage(q *quota, limits bool) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(q.Status.Hard)) {
		if strings.HasPrefix(string(name), "limits.") == limits {
			used, hard := q.Status.Used[name], q.Status.Hard[name]
			out = append(out, fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
		}
	}
	return strings.Join(out, ", ")
}

// standard are the unqualified names a quota may bound.
var standard = sets.New[corev1.ResourceName](
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage, corev1.ResourceRequestsEphemeralStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourcePersistentVolumeClaims, corev1.ResourceConfigMaps,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
)

var counted = sets.New[corev1.ResourceName](
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourcePersistentVolumeClaims, corev1.ResourceConfigMaps,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
)

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(strings.TrimPrefix(string(name), "requests."), corev1.ResourceHugePagesPrefix)
}

func validateList(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		q, at := list[name], path.Key(string(name))
		messages := validation.IsQualifiedName(string(name))
		for _, m := range messages {
			errs = append(errs, field.Invalid(at, name, m))
		}
		if len(messages) == 0 && !strings.Contains(string(name), "/") && !standard.Has(name) && !isHugePage(name) {
			errs = append(errs, field.Invalid(at, name, "must be a standard resource for quota"))
		}
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(at, q.String(), "must be greater than or equal to 0"))
		}
		if counted.Has(name) && q.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(at, q, "must be an integer"))
		}
	}
	return errs
}

var scopes = sets.New(corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating,
	corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort,
	corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
	corev1.ResourceQuotaScopeVolumeAttributesClass)

// bounds says whether a scope can narrow what is counted of a resource.
func bounds(scope corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	switch scope {
	case corev1.ResourceQuotaScopeBestEffort:
		return name == corev1.ResourcePods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage || strings.Contains(string(name), ".storageclass.storage.k8s.io/")
	}
	compute := name == corev1.ResourcePods || name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage
	return compute || (strings.HasPrefix(string(name), "requests.") && name != corev1.ResourceRequestsStorage) || strings.HasPrefix(string(name), "limits.")
}

func validateScopes(spec *corev1.ResourceQuotaSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceQuotaScope]()
	one := func(scope corev1.ResourceQuotaScope, at *field.Path, all any) {
		if !scopes.Has(scope) {
			errs = append(errs, field.Invalid(at, all, "unsupported scope"))
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Hard)) {
			if scopes.Has(scope) && standard.Has(name) && !bounds(scope, name) {
				errs = append(errs, field.Invalid(at, all, "unsupported scope applied to resource"))
			}
		}
		seen.Insert(scope)
	}
	for _, s := range spec.Scopes {
		one(s, path.Child("scopes"), spec.Scopes)
	}
	if spec.ScopeSelector != nil {
		at := path.Child("scopeSelector", "matchExpressions")
		for _, r := range spec.ScopeSelector.MatchExpressions {
			one(r.ScopeName, at.Child("scopeName"), r.ScopeName)
			errs = append(errs, validateRequirement(&r, at)...)
		}
	}
	if seen.HasAll(corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort) ||
		seen.HasAll(corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating) {
		errs = append(errs, field.Invalid(path.Child("scopes"), spec.Scopes, "conflicting scopes"))
	}
	return errs
}

func validateRequirement(r *corev1.ScopedResourceSelectorRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating,
		corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		if r.Operator != corev1.ScopeSelectorOpExists {
			errs = append(errs, field.Invalid(path.Child("operator"), r.Operator,
				"must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
		}
	}
	switch r.Operator {
	case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(path.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
		}
	case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Invalid(path.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	return errs
}

func validate(next, prev *quota) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateList(next.Spec.Hard, path.Child("hard"))
	errs = append(errs, validateScopes(&next.Spec, path)...)
	if prev != nil {
		now, was := sets.New(next.Spec.Scopes...), sets.New(prev.Spec.Scopes...)
		if !now.Equal(was) || !equality.Semantic.DeepEqual(next.Spec.ScopeSelector, prev.Spec.ScopeSelector) {
			errs = append(errs, field.Invalid(path.Child("scopes"), next.Spec.Scopes, "field is immutable"))
		}
	}
	return errs
}

func validateStatus(next, _ *quota) field.ErrorList {
	errs := validateList(next.Status.Hard, field.NewPath("status", "hard"))
	return append(errs, validateList(next.Status.Used, field.NewPath("status", "used"))...)
}

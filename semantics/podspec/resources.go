package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	helpers "k8s.io/component-helpers/resource"
)

// isNative says whether a resource's name is of Kubernetes itself.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), "kubernetes.io/")
}

// isExtended says whether a resource's name is well formed and somebody else's.
func isExtended(name corev1.ResourceName) bool {
	if isNative(name) || strings.HasPrefix(string(name), "requests.") {
		return false
	}
	return len(validation.IsQualifiedName("requests."+string(name))) == 0
}

// overcommits says whether limits of a resource may exceed requests.
func overcommits(name corev1.ResourceName) bool { return isNative(name) && !isHugePage(name) }

func isStandard(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || isHugePage(name)
}

// ResourceName judges the name of a resource that a container may ask for.
func ResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, m := range validation.IsQualifiedName(string(name)) {
		errs = append(errs, field.Invalid(path, name, m))
	}
	switch {
	case len(errs) > 0:
	case !strings.Contains(string(name), "/"):
		if !isStandard(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	case !isNative(name) && !isExtended(name):
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// Quantity judges an amount of a resource.
func Quantity(name corev1.ResourceName, q resource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be greater than or equal to 0"))
	}
	if isExtended(name) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, q, "must be an integer"))
	}
	if isHugePage(name) {
		page, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
		if err != nil || page.Value() <= 0 || q.Value()%page.Value() != 0 {
			errs = append(errs, field.Invalid(path, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name)))
		}
	}
	return errs
}

func sorted(list corev1.ResourceList) []corev1.ResourceName { return slices.Sorted(maps.Keys(list)) }

// resources judges requests and limits of a container, or a pod's overhead.
func (j *judge) resources(r *corev1.ResourceRequirements, path *field.Path, claims sets.Set[string]) {
	j.amounts(r, path, ResourceName)
	seen := sets.New[string]()
	for i, c := range r.Claims {
		at := path.Child("claims").Index(i)
		key := c.Name
		if c.Request != "" {
			key += "/" + c.Request
			j.say(at.Child("request"), c.Request, validation.IsDNS1123Label(c.Request))
		}
		switch {
		case c.Name == "":
			j.required(at.Child("name"))
		case seen.Has(key):
			j.add(field.Duplicate(at, key))
		case !claims.Has(c.Name):
			j.add(field.NotFound(at.Child("name"), c.Name))
		}
		seen.Insert(key)
	}
}

func (j *judge) amounts(r *corev1.ResourceRequirements, path *field.Path, judgeName func(corev1.ResourceName, *field.Path) field.ErrorList) {
	limits, requests := path.Child("limits"), path.Child("requests")
	huge, basic := false, false
	one := func(name corev1.ResourceName, q resource.Quantity, at *field.Path) {
		j.add(judgeName(name, at)...)
		j.add(Quantity(name, q, at)...)
		huge = huge || isHugePage(name)
		basic = basic || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range sorted(r.Limits) {
		one(name, r.Limits[name], limits.Key(string(name)))
	}
	for _, name := range sorted(r.Requests) {
		q := r.Requests[name]
		one(name, q, requests.Key(string(name)))
		limit, limited := r.Limits[name]
		switch {
		case !limited && !overcommits(name):
			j.add(field.Required(limits, "Limit must be set for non overcommitable resources"))
		case limited && q.Cmp(limit) != 0 && !overcommits(name):
			j.add(field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case limited && q.Cmp(limit) > 0:
			j.add(field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		}
	}
	if huge && !basic {
		j.add(field.Forbidden(path, "HugePages require cpu or memory"))
	}
}

// podResources judges what is asked for the pod as a whole.
func (j *judge) podResources(path *field.Path) {
	r := j.spec.Resources
	if r == nil {
		return
	}
	if r.Claims != nil {
		j.add(field.Forbidden(path.Child("claims"), "claims cannot be set for Resources at pod-level"))
	}
	j.amounts(r, path, func(name corev1.ResourceName, at *field.Path) field.ErrorList {
		if helpers.IsSupportedPodLevelResource(name) {
			return nil
		}
		return field.ErrorList{field.NotSupported(at, name, sets.List(helpers.SupportedPodLevelResources()))}
	})
	total := helpers.AggregateContainerRequests(&corev1.Pod{Spec: *j.spec}, helpers.PodResourcesOptions{})
	for _, name := range sorted(total) {
		asked, given := total[name], r.Requests[name]
		if helpers.IsSupportedPodLevelResource(name) && asked.Cmp(given) > 0 {
			j.add(field.Invalid(path.Child("requests").Key(string(name)), given.String(), fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", asked.String())))
		}
	}
	for i := range j.spec.Containers {
		list := j.spec.Containers[i].Resources.Limits
		for _, name := range sorted(list) {
			most, ok := r.Limits[name]
			if q := list[name]; ok && q.Cmp(most) > 0 {
				at := path.Child("containers").Index(i).Key(string(name)).Child("limits")
				j.add(field.Invalid(at, q.String(), fmt.Sprintf("must be less than or equal to pod limits of %s", most.String())))
			}
		}
	}
}

package admission

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/semantics/quota"
)

// limitedResource is what may be consumed only where a quota covers it.
type limitedResource struct {
	APIGroup      string                                     `json:"apiGroup"`
	Resource      string                                     `json:"resource"`
	MatchContains []string                                   `json:"matchContains"`
	MatchScopes   []corev1.ScopedResourceSelectorRequirement `json:"matchScopes"`
}

func newResourceQuota(d Deps) (request.Plugin, error) {
	var c struct {
		LimitedResources []limitedResource `json:"limitedResources"`
	}
	if err := d.Config.read("ResourceQuota", &c); err != nil {
		return nil, err
	}
	var errs field.ErrorList
	for i, l := range c.LimitedResources {
		if l.Resource == "" {
			errs = append(errs, field.Required(field.NewPath("limitedResources").Index(i).Child("resource"), ""))
		}
	}
	if err := errs.ToAggregate(); err != nil {
		return nil, fmt.Errorf("couldn't init admission plugin %q: %w", "ResourceQuota", err)
	}
	return &resourceQuota{back: d.Back, limited: c.LimitedResources}, nil
}

// counted says whether somebody has counted yet what a quota limits of usage.
func counted(q *corev1.ResourceQuota, usage corev1.ResourceList) error {
	var names []string
	known := true
	for _, n := range slices.Sorted(maps.Keys(usage)) {
		if _, limits := q.Status.Hard[n]; limits {
			names = append(names, string(n))
			_, used := q.Status.Used[n]
			known = known && used
		}
	}
	if known {
		return nil
	}
	return fmt.Errorf("status unknown for quota: %s, resources: %s", q.Name, strings.Join(names, ","))
}

// covered refuses what is limited everywhere and has no quota that covers it:
// amounts, of which some matching quota must speak, and scopes, which some quota
// of the namespace must have.
func (p *resourceQuota) covered(a *request.Attributes, usage, delta corev1.ResourceList, all, matching []*corev1.ResourceQuota) error {
	if len(p.limited) == 0 || len(delta) == 0 || !charges(a) {
		return nil
	}
	open := map[string]bool{}
	var scopes []corev1.ScopedResourceSelectorRequirement
	for _, l := range p.limited {
		scopes = append(scopes, quota.Matching(a.Object, l.MatchScopes)...)
		if (schema.GroupResource{Group: l.APIGroup, Resource: l.Resource}) != a.Resource.GroupResource() {
			continue
		}
		for n, amount := range usage {
			if amount.Sign() > 0 && slices.ContainsFunc(l.MatchContains, func(part string) bool { return strings.Contains(string(n), part) }) {
				open[string(n)] = true
			}
		}
	}
	for _, q := range matching {
		for n := range q.Status.Hard {
			delete(open, string(n))
		}
	}
	if len(open) > 0 {
		return forbidf(a, "insufficient quota to consume: %s", strings.Join(slices.Sorted(maps.Keys(open)), ","))
	}
	for _, q := range all {
		for _, has := range quota.Matching(a.Object, quota.Scopes(q)) {
			scopes = slices.DeleteFunc(scopes, func(s corev1.ScopedResourceSelectorRequirement) bool { return s.ScopeName == has.ScopeName })
		}
	}
	if len(scopes) > 0 {
		return fmt.Errorf("insufficient quota to match these scopes: %v", scopes)
	}
	return nil
}

// charges says whether a request of its kind can consume anything.
func charges(a *request.Attributes) bool {
	switch a.Resource.GroupResource().String() {
	case "pods":
		return a.Operation == request.Create && a.Subresource == "" || a.Operation == request.Update && a.Subresource == "resize"
	case "services", "persistentvolumeclaims", "resourceclaims.resource.k8s.io":
		return true
	}
	return a.Operation == request.Create
}

package authz

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Allows says whether one rule permits what i asks for.
func Allows(r *rbacv1.PolicyRule, i *request.Info) bool {
	if !has(r.Verbs, i.Verb) {
		return false
	}
	if !i.IsResource {
		return slices.ContainsFunc(r.NonResourceURLs, func(p string) bool { return urlMatches(p, i.Path) })
	}
	return has(r.APIGroups, i.Group) && resourceMatches(r.Resources, i.Resource, i.Subresource) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, i.Name))
}

func allowsAny(rules []rbacv1.PolicyRule, i *request.Info) bool {
	for k := range rules {
		if Allows(&rules[k], i) {
			return true
		}
	}
	return false
}

// has says whether list contains v or the star.
func has(list []string, v string) bool {
	for _, s := range list {
		if s == "*" || s == v {
			return true
		}
	}
	return false
}

func urlMatches(pattern, path string) bool {
	if pattern == "*" || pattern == path {
		return true
	}
	prefix, star := strings.CutSuffix(pattern, "*")
	return star && strings.HasPrefix(path, strings.TrimRight(prefix, "*"))
}

func resourceMatches(list []string, resource, sub string) bool {
	for _, s := range list {
		if s == "*" {
			return true
		}
		if sub == "" {
			if s == resource {
				return true
			}
			continue
		}
		r, rs, ok := strings.Cut(s, "/")
		if ok && rs == sub && (r == resource || r == "*") {
			return true
		}
	}
	return false
}

// covers returns the rights among wanted that owned does not include, as
// single-valued rules.
func covers(owned, wanted []rbacv1.PolicyRule) (missing []rbacv1.PolicyRule) {
	for i := range wanted {
		for _, atom := range atoms(&wanted[i]) {
			if !slices.ContainsFunc(owned, func(o rbacv1.PolicyRule) bool { return ruleCovers(&o, &atom) }) {
				missing = append(missing, atom)
			}
		}
	}
	return missing
}

// atoms splits a rule into rules with one verb, group, resource and name each.
func atoms(r *rbacv1.PolicyRule) (out []rbacv1.PolicyRule) {
	for _, v := range r.Verbs {
		for _, g := range r.APIGroups {
			for _, res := range r.Resources {
				base := rbacv1.PolicyRule{Verbs: []string{v}, APIGroups: []string{g}, Resources: []string{res}}
				if len(r.ResourceNames) == 0 {
					out = append(out, base)
				}
				for _, n := range r.ResourceNames {
					named := base
					named.ResourceNames = []string{n}
					out = append(out, named)
				}
			}
		}
		for _, u := range r.NonResourceURLs {
			out = append(out, rbacv1.PolicyRule{Verbs: []string{v}, NonResourceURLs: []string{u}})
		}
	}
	return out
}

// ruleCovers says whether o includes the right of one atom.
func ruleCovers(o, atom *rbacv1.PolicyRule) bool {
	if !has(o.Verbs, atom.Verbs[0]) {
		return false
	}
	if len(atom.NonResourceURLs) > 0 {
		return slices.ContainsFunc(o.NonResourceURLs, func(p string) bool { return urlMatches(p, atom.NonResourceURLs[0]) })
	}
	if !has(o.APIGroups, atom.APIGroups[0]) {
		return false
	}
	resource, sub, _ := strings.Cut(atom.Resources[0], "/")
	if !resourceMatches(o.Resources, resource, sub) {
		return false
	}
	if len(atom.ResourceNames) == 0 {
		return len(o.ResourceNames) == 0
	}
	return len(o.ResourceNames) == 0 || slices.Contains(o.ResourceNames, atom.ResourceNames[0])
}

// compact joins atoms that differ in their verbs alone.
func compact(rules []rbacv1.PolicyRule) (out []rbacv1.PolicyRule) {
	for _, r := range rules {
		i := slices.IndexFunc(out, func(o rbacv1.PolicyRule) bool {
			return slices.Equal(o.APIGroups, r.APIGroups) && slices.Equal(o.Resources, r.Resources) &&
				slices.Equal(o.ResourceNames, r.ResourceNames) && len(o.NonResourceURLs) == 0 && len(r.NonResourceURLs) == 0
		})
		if i < 0 {
			r.Verbs = slices.Clone(r.Verbs)
			out = append(out, r)
			continue
		}
		for _, v := range r.Verbs {
			if !slices.Contains(out[i].Verbs, v) {
				out[i].Verbs = append(out[i].Verbs, v)
			}
		}
	}
	return out
}

// describe writes a rule on one line, as upstream's refusals do.
func describe(r *rbacv1.PolicyRule) string {
	var parts []string
	add := func(name string, list []string) {
		if len(list) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", name, list))
		}
	}
	add("APIGroups", r.APIGroups)
	add("Resources", r.Resources)
	add("NonResourceURLs", r.NonResourceURLs)
	add("ResourceNames", r.ResourceNames)
	add("Verbs", r.Verbs)
	return "{" + strings.Join(parts, ", ") + "}"
}

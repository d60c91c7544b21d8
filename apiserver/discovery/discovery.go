// Package discovery tells clients what is served.
//
// Job: /api, /apis and the resource lists below, in the legacy form and as one
// aggregated document, with ETags.
//
// Not its job: schemas (openapi).
//
// Invariants: groups come in upstream's order of priority and retired versions
// last, so that clients that pick the first never pick what is retired; a
// document is made once for a set of kinds.
package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/sampan-dev/sampan/resource"
)

// groupOrder is upstream's, from the priorities of its aggregator.
func groupOrder() []string {
	return []string{
		"", "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling",
		"batch", "certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
		"admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io",
		"discovery.k8s.io", "resource.k8s.io", "flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io", "storagemigration.k8s.io",
	}
}

// group is one API group with its versions, preferred first.
type group struct {
	name     string
	versions []*groupVersion
}

// preferred is the version a client should choose.
func (g *group) preferred() string { return g.versions[0].version }

type groupVersion struct {
	group, version string
	retired        bool
	resources      []served
}

// served is a kind in one of its versions.
type served struct {
	info           *resource.Info
	also           *resource.Version
	kind, plural   string
	group, version string
}

func (s *served) singular() string {
	if s.also != nil && s.also.Kind != "" && s.also.Kind != s.info.Kind {
		return strings.ToLower(s.also.Kind)
	}
	return s.info.Singular
}

// arrange sorts everything served into groups.
func arrange(kinds []resource.Kind) []*group {
	versions := map[schema.GroupVersion]*groupVersion{}
	at := func(g, v string) *groupVersion {
		gv := schema.GroupVersion{Group: g, Version: v}
		if versions[gv] == nil {
			versions[gv] = &groupVersion{group: g, version: v, retired: true}
		}
		return versions[gv]
	}
	for _, k := range kinds {
		i := k.Info()
		if !i.Hidden {
			v := at(i.Group, i.Version)
			v.retired = false
			v.resources = append(v.resources, served{i, nil, i.Kind, i.Plural, i.Group, i.Version})
		}
		for n := range i.Also {
			a := &i.Also[n]
			if a.Apart {
				continue
			}
			v := at(a.Group, a.Version)
			v.retired = v.retired && a.Retired
			v.resources = append(v.resources, served{i, a, cmp.Or(a.Kind, i.Kind), cmp.Or(a.Plural, i.Plural), a.Group, a.Version})
		}
	}
	groups := map[string]*group{}
	for _, v := range versions {
		slices.SortFunc(v.resources, func(a, b served) int { return cmp.Compare(a.plural, b.plural) })
		if groups[v.group] == nil {
			groups[v.group] = &group{name: v.group}
		}
		groups[v.group].versions = append(groups[v.group].versions, v)
	}
	out := make([]*group, 0, len(groups))
	for _, g := range groups {
		slices.SortFunc(g.versions, compareVersions)
		out = append(out, g)
	}
	slices.SortFunc(out, compareGroups)
	return out
}

func compareVersions(a, b *groupVersion) int {
	if a.retired != b.retired {
		if a.retired {
			return 1
		}
		return -1
	}
	return -version.CompareKubeAwareVersionStrings(a.version, b.version)
}

// compareGroups puts the known groups in their order, then those of custom
// resources by name, then those of which everything is retired.
func compareGroups(a, b *group) int {
	order := groupOrder()
	rank := func(g *group) int {
		if g.versions[0].retired {
			return len(order) + 1
		}
		if n := slices.Index(order, g.name); n >= 0 {
			return n
		}
		return len(order)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.name, b.name))
}

// sub is a subresource as discovery shows it.
type sub struct {
	name  string
	kind  schema.GroupVersionKind
	verbs []string
}

// subs lists a kind's subresources by name.
func (s *served) subs() []sub {
	own := schema.GroupVersionKind{Group: s.group, Version: s.version, Kind: s.kind}
	var out []sub
	for _, n := range s.info.Subs {
		var verbs []string
		if !n.WriteOnly {
			verbs = append(verbs, "get")
		}
		if !n.ReadOnly {
			if !n.NoPatch {
				verbs = append(verbs, "patch")
			}
			verbs = append(verbs, "update")
		}
		out = append(out, sub{n.Name, own, verbs})
	}
	if s.info.HasScale && (s.also == nil || !s.also.NoScale) {
		out = append(out, sub{"scale", schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, []string{"get", "patch", "update"}})
	}
	for _, c := range s.info.Connects {
		out = append(out, sub{c.Name, c.Kind, slices.Sorted(slices.Values(c.Verbs))})
	}
	slices.SortFunc(out, func(a, b sub) int { return cmp.Compare(a.name, b.name) })
	return out
}

// short names and categories are the stored version's and its equals': a
// retired one that had them too would be listed twice by "get all".
func (s *served) short() []string {
	if s.also != nil && s.also.Retired {
		return nil
	}
	return s.info.Short
}

func (s *served) categories() []string {
	if s.also != nil && s.also.Retired {
		return nil
	}
	return s.info.Categories
}

func (s *served) verbs() []string {
	verbs := s.info.Verbs
	if s.info.Listed != nil {
		verbs = s.info.Listed
	}
	return slices.Sorted(slices.Values(verbs))
}

// storageHash names the stored form of a kind, for those who migrate storage.
func (s *served) storageHash() string {
	if s.info.Virtual {
		return ""
	}
	sum := sha256.Sum256([]byte(s.info.Group + "/" + cmp.Or(s.info.StorageVersion, s.info.Version) + "/" + s.info.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// resourceList is the legacy list of one version.
func resourceList(v *groupVersion) *metav1.APIResourceList {
	gv := schema.GroupVersion{Group: v.group, Version: v.version}
	out := &metav1.APIResourceList{GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
	out.Kind = "APIResourceList"
	if v.group != "" {
		out.APIVersion = "v1"
	}
	for i := range v.resources {
		s := &v.resources[i]
		out.APIResources = append(out.APIResources, metav1.APIResource{
			Name: s.plural, SingularName: s.singular(), Namespaced: !s.info.ClusterScoped, Kind: s.kind, Verbs: s.verbs(),
			ShortNames: s.short(), Categories: s.categories(), StorageVersionHash: s.storageHash(),
		})
		for _, b := range s.subs() {
			r := metav1.APIResource{Name: s.plural + "/" + b.name, Namespaced: !s.info.ClusterScoped, Kind: b.kind.Kind, Verbs: b.verbs}
			if b.kind.GroupVersion() != gv {
				r.Group, r.Version = b.kind.Group, b.kind.Version
			}
			out.APIResources = append(out.APIResources, r)
		}
	}
	return out
}

func apiGroup(g *group) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.name}
	for _, v := range g.versions {
		gv := schema.GroupVersion{Group: v.group, Version: v.version}
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: v.version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

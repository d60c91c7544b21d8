package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Served is one resource that the server serves, in one version.
type Served struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
	Verbs      []string
}

// Has says whether the resource knows all of the verbs.
func (s *Served) Has(verbs ...string) bool {
	for _, v := range verbs {
		if !slices.Contains(s.Verbs, v) {
			return false
		}
	}
	return true
}

// Discover returns every resource the server serves, each in the first of its
// group's versions that has it, the preferred one before others. With an error
// the groups that could be read are returned all the same; the error joins one
// for each that could not.
func Discover(ctx context.Context, c Interface) ([]Served, error) {
	var groups metav1.APIGroupList
	if err := fetch(ctx, c, "/apis", &groups); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	out, err := discoverVersion(ctx, c, "/api/v1", schema.GroupVersion{Version: "v1"})
	errs := []error{err}
	for _, g := range groups.Groups {
		seen := map[string]bool{}
		versions := slices.Clone(g.Versions)
		slices.SortStableFunc(versions, func(a, b metav1.GroupVersionForDiscovery) int {
			switch preferred := g.PreferredVersion.Version; {
			case a.Version == preferred && b.Version != preferred:
				return -1
			case b.Version == preferred && a.Version != preferred:
				return 1
			}
			return 0
		})
		for _, v := range versions {
			list, err := discoverVersion(ctx, c, "/apis/"+v.GroupVersion, schema.GroupVersion{Group: g.Name, Version: v.Version})
			errs = append(errs, err)
			for _, s := range list {
				if !seen[s.Resource] {
					seen[s.Resource] = true
					out = append(out, s)
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

func discoverVersion(ctx context.Context, c Interface, path string, gv schema.GroupVersion) ([]Served, error) {
	var list metav1.APIResourceList
	if err := fetch(ctx, c, path, &list); err != nil {
		return nil, fmt.Errorf("discovery: %s: %w", gv, err)
	}
	var out []Served
	for _, r := range list.APIResources {
		if slices.Contains([]byte(r.Name), '/') {
			continue // a subresource
		}
		out = append(out, Served{gv.WithResource(r.Name), r.Kind, r.Namespaced, r.Verbs})
	}
	return out, nil
}

func fetch(ctx context.Context, c Interface, path string, into any) error {
	data, err := c.Raw(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

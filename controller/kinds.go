package controller

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
)

// Kinds finds the resources of kinds that references name. What was found once
// is kept, for a kind never changes its resource's name. The zero value is ready.
type Kinds struct {
	mu    sync.Mutex
	known map[schema.GroupKind]schema.GroupVersionResource
}

// Resource returns the resource of a kind, in the group's preferred version.
func (k *Kinds) Resource(ctx context.Context, c client.Interface, apiVersion, kind string) (schema.GroupVersionResource, error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	gk := schema.GroupKind{Group: gv.Group, Kind: kind}
	k.mu.Lock()
	r, ok := k.known[gk]
	k.mu.Unlock()
	if ok {
		return r, nil
	}
	served, failed := client.Discover(ctx, c)
	for _, s := range served {
		if s.Kind == kind && s.Group == gv.Group {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.known == nil {
				k.known = map[schema.GroupKind]schema.GroupVersionResource{}
			}
			k.known[gk] = s.GroupVersionResource
			return s.GroupVersionResource, nil
		}
	}
	if failed != nil {
		return r, failed
	}
	return r, fmt.Errorf("no matches for kind %q in group %q", kind, gv.Group)
}

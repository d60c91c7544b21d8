package rest

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/resource"
)

// Served is one way a kind can be asked for: as stored, or in another version.
type Served struct {
	Kind    resource.Kind
	Info    *resource.Info
	Version *resource.Version // nil: as stored
	GVK     schema.GroupVersionKind
	Plural  string

	custom resource.Custom // the Kind, if it was made at run time
	keep   *keeper
}

// GVR is the resource of the served version.
func (s *Served) GVR() schema.GroupVersionResource {
	return s.GVK.GroupVersion().WithResource(s.Plural)
}

// GR names the served resource in messages.
func (s *Served) GR() schema.GroupResource {
	return schema.GroupResource{Group: s.GVK.Group, Resource: s.Plural}
}

// StoredGVR is the resource of the stored version.
func (s *Served) StoredGVR() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: s.Info.Group, Version: s.Info.Version, Resource: s.Info.Plural}
}

// Prefix is where the kind's objects live, "/registry/pods/".
func (s *Served) Prefix() string { return "/registry/" + s.Info.Prefix + "/" }

// NewObject returns an empty object of the served version.
func (s *Served) NewObject() api.Object {
	if s.Version != nil {
		return s.Version.New()
	}
	return s.Kind.New()
}

// Has says whether the kind is served with a verb.
func (s *Served) Has(verb string) bool { return slices.Contains(s.Info.Verbs, verb) }

// Registry knows all that is served. It may change while the server runs:
// custom resources come and go.
type Registry struct {
	mu   sync.Mutex
	keep *keeper
	view atomic.Pointer[view]
	next chan struct{} // closed by the next Set
}

type view struct {
	byGVR map[schema.GroupVersionResource]*Served
	byGR  map[schema.GroupResource]*Served // as stored
	kinds []resource.Kind

	groups map[string]bool
}

// NewRegistry returns a registry of kinds.
func NewRegistry(kinds []resource.Kind) *Registry {
	r := &Registry{keep: &keeper{budget: formsBudget}, next: make(chan struct{})}
	r.Set(kinds)
	return r
}

// Set replaces all kinds.
func (r *Registry) Set(kinds []resource.Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := &view{
		byGVR: map[schema.GroupVersionResource]*Served{},
		byGR:  map[schema.GroupResource]*Served{},
		kinds: slices.Clone(kinds), groups: map[string]bool{},
	}
	for _, k := range kinds {
		for _, s := range serve(k) {
			s.keep = r.keep
			s.custom, _ = k.(resource.Custom)
			if s.Version != nil || !s.Info.Hidden {
				v.byGVR[s.GVR()] = s
				v.groups[s.GVK.Group] = true
			}
			if s.Version == nil && s.Info.Stored() {
				v.byGR[s.GR()] = s
			}
		}
	}
	// A second version in another group is found by its group too, unless a kind
	// of that group is stored under the name.
	for _, k := range kinds {
		for _, s := range serve(k)[1:] {
			if _, ok := v.byGR[s.GR()]; !ok {
				v.byGR[s.GR()] = v.byGVR[s.StoredGVR()]
			}
		}
	}
	r.view.Store(v)
	close(r.next)
	r.next = make(chan struct{})
}

// Changed returns a channel that is closed when Set is called next.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// serve lists the ways to ask for k, the stored version first.
func serve(k resource.Kind) []*Served {
	i := k.Info()
	all := []*Served{{Kind: k, Info: i, GVK: i.GroupVersionKind, Plural: i.Plural}}
	for n := range i.Also {
		v := &i.Also[n]
		if v.Apart {
			continue
		}
		s := &Served{Kind: k, Info: i, Version: v, Plural: v.Plural,
			GVK: schema.GroupVersionKind{Group: v.Group, Version: v.Version, Kind: v.Kind}}
		if s.Plural == "" {
			s.Plural = i.Plural
		}
		if s.GVK.Kind == "" {
			s.GVK.Kind = i.Kind
		}
		all = append(all, s)
	}
	return all
}

// Find returns what is served under a resource's name.
func (r *Registry) Find(gvr schema.GroupVersionResource) (*Served, bool) {
	s, ok := r.view.Load().byGVR[gvr]
	return s, ok
}

// Stored returns a kind, as stored, by its group and plural name.
func (r *Registry) Stored(gr schema.GroupResource) (*Served, bool) {
	s, ok := r.view.Load().byGR[gr]
	return s, ok
}

// Kinds returns the kinds in their order.
func (r *Registry) Kinds() []resource.Kind { return r.view.Load().kinds }

// All returns everything served, in no order.
func (r *Registry) All() []*Served {
	return slices.Collect(maps.Values(r.view.Load().byGVR))
}

// HasGroup says whether anything of a group is served.
func (r *Registry) HasGroup(group string) bool { return r.view.Load().groups[group] }
